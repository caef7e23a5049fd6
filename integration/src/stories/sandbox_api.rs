//! containerd's Sandbox API: a pod of a shim without a pause container, called by the story itself, and by CRI where containerd can.

use crate::{
    lab::{
        Ended, Lab, Set,
        cri::{Cri, Pod, SANDBOX_API},
    },
    stories::{
        pods::{idle, two_containers},
        story::{Machines, OURS, Story},
    },
    testbed::images::{BUSYBOX, REDIS},
};
use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::{
    cgroups_v2::metrics::Metrics,
    protobuf::Message,
    sandbox_api::{
        CreateSandboxRequest, PingRequest, PlatformRequest, SandboxMetricsRequest, SandboxStatusRequest, ShutdownSandboxRequest,
        StartSandboxRequest, StopSandboxRequest, WaitSandboxRequest,
    },
    sandbox_async::SandboxClient,
    shim_async::Client,
};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "sandbox-api",
        about: "every call of the Sandbox API, from an empty bundle to a shim that has ended",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: direct,
    },
    Story {
        name: "pod-sandbox-api",
        about: "a pod by CRI with `sandboxer = \"shim\"`: two containers under the policy of a pod with a pause container, and no such container",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: by_cri,
    },
];

const ID: &str = "story-sandbox";
/// A network namespace in which CNI has made nothing.
const NETNS: &str = "/run/story-sandbox-netns";
const SHIM: &str = "containerd-shim-casemate-v2";
/// Time limit of a call in an emulated machine.
const CALL: Duration = Duration::from_secs(120);

fn direct(lab: &Lab) -> Result<()> {
    let bundle = Path::new("/run").join(ID);
    fs::create_dir_all(&bundle).context("cannot make the bundle")?;
    fs::write(NETNS, "").context("cannot make the place of the namespace")?;
    Ended::of(&["unshare", &format!("--net={NETNS}"), "true"])?.exits_with(0)?;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let called = tokio.block_on(calls(&action(&bundle, "start")?, &bundle));
    // Also after a failure, so that the next story has its machine for itself.
    let deleted = action(&bundle, "delete");
    // The shim may be about to end.
    Ended::of(&["umount", "--lazy", NETNS])?.exits_with(0)?;
    fs::remove_file(NETNS).context("cannot remove the place of the namespace")?;
    fs::remove_dir_all(&bundle).context("cannot remove the bundle")?;
    called?;
    deleted?;
    lab.nothing_is_left()
}

/// What the shim prints when it is called as containerd 2.1 calls it.
fn action(bundle: &Path, action: &str) -> Result<Vec<u8>> {
    let output = Command::new(SHIM)
        .args(["-namespace", "default", "-id", ID, "-address", "/run/containerd/containerd.sock"])
        .args(["-publish-binary", "/usr/bin/containerd", "-bundle"])
        .arg(bundle)
        .arg(action)
        .current_dir(bundle)
        .env("TTRPC_ADDRESS", "/run/containerd/containerd.sock.ttrpc")
        .stdin(Stdio::null())
        .output()
        .context("cannot start the shim")?;
    ensure!(
        output.status.success(),
        "{SHIM} {action}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// Every call, in the order of a sandbox's life.
async fn calls(started: &[u8], bundle: &Path) -> Result<()> {
    let reply: serde_json::Value = serde_json::from_slice(started).context("the reply to start is no JSON")?;
    ensure!(reply["version"] == 3 && reply["protocol"] == "ttrpc", "{reply}");
    let address = reply["address"].as_str().context("no address")?;
    let client = SandboxClient::new(Client::connect(address).await.context("cannot connect to the shim")?);
    let context = || ttrpc::context::with_duration(CALL);
    let sandbox_id = ID.to_owned();

    let create = CreateSandboxRequest {
        sandbox_id: sandbox_id.clone(),
        bundle_path: bundle.display().to_string(),
        netns_path: NETNS.to_owned(),
        ..Default::default()
    };
    client.create_sandbox(context(), &create).await.context("create")?;
    ensure!(client.create_sandbox(context(), &create).await.is_err(), "it was created twice");
    let asked = SandboxStatusRequest {
        sandbox_id: sandbox_id.clone(),
        ..Default::default()
    };
    let status = client.sandbox_status(context(), &asked).await.context("status")?;
    ensure!(status.state == "SANDBOX_NOTREADY", "{status:?}");

    let start = StartSandboxRequest {
        sandbox_id: sandbox_id.clone(),
        ..Default::default()
    };
    let running = client.start_sandbox(context(), &start).await.context("start")?;
    ensure!(
        Path::new(&format!("/proc/{}", running.pid)).exists(),
        "{} is no process",
        running.pid
    );
    let ping = PingRequest {
        sandbox_id: sandbox_id.clone(),
        ..Default::default()
    };
    client.ping_sandbox(context(), &ping).await.context("ping")?;
    let status = client.sandbox_status(context(), &asked).await.context("status")?;
    ensure!(status.state == "SANDBOX_READY" && status.pid == running.pid, "{status:?}");
    let platform = PlatformRequest {
        sandbox_id: sandbox_id.clone(),
        ..Default::default()
    };
    let platform = client.platform(context(), &platform).await.context("platform")?;
    ensure!(platform.platform.os == "linux" && platform.platform.architecture == "amd64");
    let metrics = SandboxMetricsRequest {
        sandbox_id: sandbox_id.clone(),
        ..Default::default()
    };
    let metrics = client.sandbox_metrics(context(), &metrics).await.context("metrics")?;
    let counters = Metrics::parse_from_bytes(&metrics.metrics.data.value).context("the metrics are of another type")?;
    ensure!(counters.memory.usage > 1 << 20 && counters.cpu.usage_usec > 0, "{counters:?}");

    let wait = WaitSandboxRequest {
        sandbox_id: sandbox_id.clone(),
        ..Default::default()
    };
    let stop = StopSandboxRequest {
        sandbox_id: sandbox_id.clone(),
        timeout_secs: 10,
        ..Default::default()
    };
    let (exit, stopped) = tokio::join!(client.wait_sandbox(context(), &wait), client.stop_sandbox(context(), &stop));
    stopped.context("stop")?;
    let exit = exit.context("wait")?;
    let again = client.wait_sandbox(context(), &wait).await.context("wait once more")?;
    ensure!(
        exit.exited_at.is_some() && again.exit_status == exit.exit_status,
        "{exit:?} {again:?}"
    );
    client.stop_sandbox(context(), &stop).await.context("stop once more")?;
    ensure!(client.ping_sandbox(context(), &ping).await.is_err(), "its VM is said to run");
    let status = client.sandbox_status(context(), &asked).await.context("status")?;
    ensure!(status.state == "SANDBOX_NOTREADY" && status.exited_at.is_some(), "{status:?}");
    let shutdown = ShutdownSandboxRequest {
        sandbox_id,
        ..Default::default()
    };
    client.shutdown_sandbox(context(), &shutdown).await.context("shut down")?;
    Ok(())
}

fn by_cri(lab: &Lab) -> Result<()> {
    let version = Ended::of(&["containerd", "--version"])?.exits_with(0)?.text();
    if version.contains(" 1.") {
        println!("  {version}: its CRI has no sandboxers; the calls themselves are `sandbox-api`'s");
        return Ok(());
    }
    let policy = two_containers()?;
    let cri = Cri::start_as(SANDBOX_API, &[BUSYBOX, REDIS])?;
    let result = with_pod(&cri, Pod::new("by-api").under(&policy));
    if result.is_err() {
        cri.show_log();
    }
    drop(cri);
    result?;
    lab.nothing_is_left()
}

fn with_pod(cri: &Cri, pod: Pod) -> Result<()> {
    let pod = cri.run(pod)?;
    let shell = pod.run(&idle("shell"))?;
    let redis = pod.run(&crate::lab::cri::PodContainer::new("redis", REDIS, &[]))?;
    ensure!(pod.output(&shell, &["cat", "/etc/hostname"])? == "by-api");
    let containers = cri.containers()?;
    ensure!(
        containers.len() == 2 && containers.contains(&shell) && containers.contains(&redis),
        "{containers:?}"
    );
    ensure!(!pod.addresses()?.is_empty(), "the pod has no address");
    match pod.run(&idle("changed").with(|config| config.command = vec!["id".to_owned()])) {
        Ok(_) => bail!("a changed command was not denied"),
        Err(status) => ensure!(status.message().contains("create_container"), "{status:?}"),
    }
    pod.end()
}
