//! The story's containerd as a process: its configuration, its images, its network's configuration, and its end.

use crate::{
    lab::{Ended, IMAGES},
    testbed::images::{self, PAUSE},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// State, socket and log; the root lies in the machine's own root, which is in memory too.
const STATE: &str = "/run/casemate-cri";
/// Where pods' logs are: containerd appends to a log that is there, so that they go with the state of a story before.
pub const LOGS: &str = "/run/casemate-cri/logs";
const ROOT: &str = "/var/lib/containerd/casemate-cri";
/// The runtime handler whose sandboxes are the shim's own (containerd 2).
pub const SANDBOX_API: &str = "casemate-sandbox";
/// containerd answers within this time.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// The network that pods get: Debian's plugins bridge, host-local, portmap and firewall.
const CNI: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "stories",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "mtu": 1400, "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"}
  ]
}
"#;

/// A containerd that runs.
pub struct Node(Child);

impl Node {
    /// Writes the configuration, starts containerd, and imports `images` and that of the pods' own containers.
    pub fn start(images: &[&str]) -> Result<Self> {
        // Of a story before.
        let _ = fs::remove_dir_all(STATE);
        let _ = fs::remove_dir_all(ROOT);
        fs::create_dir_all(format!("{STATE}/cni")).context("cannot make the state directory")?;
        fs::write(format!("{STATE}/cni/10-stories.conflist"), CNI).context("cannot write the network's configuration")?;
        fs::write(format!("{STATE}/config.toml"), configuration()).context("cannot write the configuration")?;
        let log = File::create(format!("{STATE}/log")).context("cannot make the log")?;
        let child = Command::new("containerd")
            .args(["--config", &format!("{STATE}/config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .spawn()
            .context("cannot start containerd")?;
        let mut node = Self(child);
        node.wait()?;
        for reference in images.iter().chain([&PAUSE]) {
            node.import(reference)?;
        }
        Ok(node)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        Path::new(STATE).join("containerd.sock")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(format!("{STATE}/log")).unwrap_or_default()
    }

    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + STARTS_WITHIN;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if Instant::now() > end || self.0.try_wait().context("cannot look at containerd")?.is_some() {
                bail!("the story's containerd does not answer: {}", self.log());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// From the layout that the machine's preparation has unpacked.
    fn import(&self, reference: &str) -> Result<()> {
        let layout = images::file_name(reference);
        let layout = layout.trim_end_matches(".tar");
        let script = format!("tar cf - -C {IMAGES}/{layout} . | ctr --address {STATE}/containerd.sock --namespace k8s.io images import -");
        Ended::of(&["sh", "-c", &script])?.exits_with(0).map(drop)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // What CNI made for all pods, not for one.
        let _ = Command::new("ip").args(["link", "del", "cni0"]).stderr(Stdio::null()).status();
    }
}

/// For containerd 1.6 and 1.7.
fn configuration() -> String {
    format!(
        r#"version = 2
root = "{ROOT}"
state = "{STATE}/state"
[grpc]
address = "{STATE}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{STATE}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.casemate]
runtime_type = "io.containerd.casemate.v2"
pod_annotations = ["io.casemate.*"]
container_annotations = ["io.casemate.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{SANDBOX_API}]
runtime_type = "io.containerd.casemate.v2"
sandboxer = "shim"
pod_annotations = ["io.casemate.*"]
container_annotations = ["io.casemate.*"]
"#
    )
}
