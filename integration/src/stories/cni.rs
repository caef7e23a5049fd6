//! A network that is made between Create and Start: `ctr run --cni`, which finds the namespace by the process id of the task.

use crate::{
    lab::{Ended, Lab, Set},
    stories::story::{BOTH, Machines, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::{io::Write, net::TcpListener, thread};

/// The story of this file.
pub const STORY: Story = Story {
    name: "ctr-cni",
    about: "a container of `ctr run --cni` has the address that CNI gives it after its creation, and reaches the host",
    runtimes: BOTH,
    set: Set::Short,
    machines: Machines::Shared,
    run,
};

const BRIDGE: &str = "story-cni";
const GATEWAY: &str = "10.89.7.1";
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "story",
  "plugins": [{
    "type": "bridge",
    "bridge": "story-cni",
    "isGateway": true,
    "ipam": {"type": "host-local", "subnet": "10.89.7.0/24", "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/story-cni"}
  }]
}"#;
/// ctr looks for plugins and configuration in fixed places, which the machine's root has not.
const PLACES: &str = r#"mount -t tmpfs tmpfs /opt && mkdir -p /opt/cni && ln -s /usr/lib/cni /opt/cni/bin &&
mount -t tmpfs tmpfs /etc/cni/net.d && printf '%s' "$1" >/etc/cni/net.d/10-story.conflist && shift && exec "$@""#;

fn run(lab: &Lab) -> Result<()> {
    let listener = TcpListener::bind("0.0.0.0:0").context("cannot listen")?;
    let port = listener.local_addr().context("no local address")?.port();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.write_all(b"from the host\n");
        }
    });
    let script = format!("ip -4 -o addr show dev eth0; nc {GATEWAY} {port} </dev/null");
    let own_places = ["unshare", "-m", "sh", "-c", PLACES, "sh", NETWORK];
    let ctr = ["ctr", "run", "--rm", "--cni", "--runtime", lab.runtime().name(), BUSYBOX, "cni"];
    let ended = Ended::of(&[&own_places[..], &ctr, &["sh", "-c", &script]].concat())?.exits_with(0)?;
    let removed = Ended::of(&["ip", "link", "del", BRIDGE])?;
    ended.mentions("inet 10.89.7.")?.mentions("from the host")?;
    removed.exits_with(0)?;
    let _ = std::fs::remove_dir_all("/run/story-cni");
    lab.nothing_is_left()?;
    ensure!(
        !std::path::Path::new("/opt/cni").exists(),
        "the story's mounts are seen outside of it"
    );
    Ok(())
}
