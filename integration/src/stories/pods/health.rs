//! What the kubelet does for the life of a container: probes, hooks, statistics, and the report that memory ran out.

use super::{IDLE, SERVES_WITHIN, idle, pod, serve, with_cri};
use crate::{
    lab::{
        Lab, Runtime,
        cri::{Pod, PodContainer, RunningPod, get},
    },
    stories::story::{BOTH, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, bail, ensure};
use k8s_cri::v1::{ContainerStats, UInt64Value};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    pod(
        "pod-oom",
        "a container over its memory limit is OOMKilled with 137; its neighbour lives on, and so does its successor",
        BOTH,
        oom,
    ),
    pod(
        "pod-stats",
        "a container's processor time and memory are counted, and the pod's, with its traffic",
        BOTH,
        stats,
    ),
    pod(
        "pod-probes",
        "probes by exec, TCP and HTTP fail before the server starts and after it has gone, and succeed in between",
        BOTH,
        probes,
    ),
    pod(
        "pod-hooks",
        "what preStop did is there at SIGTERM, and a hook that hangs leaves the container its least grace",
        BOTH,
        hooks,
    ),
    pod(
        "pod-children",
        "orphans of a shared process namespace are reaped by the pod's own process",
        OURS,
        children,
    ),
];

/// A probe that takes longer has hung.
const PROBE: Duration = Duration::from_secs(10);
/// An exec with a time limit of few seconds ends within this time.
const TIMES_OUT_WITHIN: Duration = Duration::from_secs(30);
/// The parent of a pod's cgroups, which the kubelet makes.
const PARENT: &str = "/pod-stats";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Children that outlive their parents.
const ORPHANS: usize = 150;

fn oom(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("oom"))?;
        let neighbour = pod.run(&idle("neighbour"))?;
        let hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];
        let modest = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=8M count=1 && exec sleep 1000"];
        let hog = pod.run(&PodContainer::new("hog", BUSYBOX, &hungry).memory(32 << 20))?;
        ensure!(pod.exited(&hog)?.exit_code == 137, "{:?}", pod.status(&hog)?);
        // The event of the kill and that of the exit are two.
        lab.until("the reason", SERVES_WITHIN, || {
            pod.status(&hog).ok().filter(|status| status.reason == "OOMKilled")
        })
        .with_context(|| format!("{:?}", pod.status(&hog)))?;
        ensure!(pod.output(&neighbour, &["echo", "alive"])? == "alive");

        let successor = PodContainer::new("hog", BUSYBOX, &modest).memory(32 << 20).with(|config| {
            if let Some(metadata) = &mut config.metadata {
                metadata.attempt = 1;
            }
        });
        let successor = pod.run(&successor)?;
        pod.remove(&hog)?;
        ensure!(pod.output(&successor, &["echo", "alive"])? == "alive");
        pod.stop(&successor, 0)?;
        // Killed, and not for its memory.
        let status = pod.exited(&successor)?;
        ensure!((status.exit_code, status.reason.as_str()) == (137, "Error"), "{status:?}");
        pod.end()
    })
}

fn number(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

/// Processor time in nanoseconds, and memory in bytes.
fn used(stats: &ContainerStats) -> (u64, u64) {
    let cpu = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref());
    let memory = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref());
    (number(cpu), number(memory))
}

fn stats(lab: &Lab) -> Result<()> {
    let cgroup = format!("{CGROUPS}{PARENT}");
    // Controllers that are on already, or that this kernel lacks, are another's matter.
    let enable = |dir: &str| {
        for controller in ["+cpu", "+memory", "+pids"] {
            let _ = fs::write(format!("{dir}/cgroup.subtree_control"), controller);
        }
    };
    enable(CGROUPS);
    fs::create_dir_all(&cgroup).context("cannot make the pod's cgroup")?;
    enable(&cgroup);
    let result = with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("stats").linux(|linux| linux.cgroup_parent = PARENT.to_owned()))?;
        let (busy, calm) = (pod.run(&idle("busy"))?, pod.run(&idle("calm"))?);
        let (cpu, memory) = used(&pod.stats(&busy)?);
        ensure!(cpu > 0 && memory > 0, "{cpu} ns, {memory} bytes");
        // Pages of the shared memory are the container's that wrote them.
        pod.output(
            &busy,
            &[
                "sh",
                "-c",
                "dd if=/dev/zero of=/dev/shm/held bs=1M count=16 && seq 1 100000 | wc -l",
            ],
        )?;
        let (more_cpu, more_memory) = lab.until("the counters", SERVES_WITHIN, || {
            let (more_cpu, more_memory) = used(&pod.stats(&busy).ok()?);
            (more_cpu > cpu && more_memory >= memory + (15 << 20)).then_some((more_cpu, more_memory))
        })?;
        println!("  busy: {cpu} ns and {memory} bytes, then {more_cpu} and {more_memory}");
        let all = pod.all_stats()?;
        let of = |id: &str| {
            let found = all.iter().find(|stats| stats.attributes.as_ref().is_some_and(|it| it.id == id));
            found.map(used).with_context(|| format!("{id} is not listed"))
        };
        let (of_busy, of_calm) = (of(&busy)?, of(&calm)?);
        println!("  listed: busy {of_busy:?}, calm {of_calm:?}");
        ensure!(all.len() == 2 && of_busy.0 >= more_cpu, "{all:?}");
        ensure!(of_calm.0 > 0 && of_calm.1 > 0 && of_calm.1 < of_busy.1, "{all:?}");

        serve(&pod, &busy, 80, "counted")?;
        let address = pod.addresses()?.into_iter().next().context("the pod has no address")?;
        pod.output(&busy, &["sh", "-c", "head -c 1000000 /dev/zero >/tmp/www80/index.html"])?;
        ensure!(get(&format!("{address}:80"))?.len() == 1_000_000);
        let of_pod = pod.pod_stats()?;
        let cpu = of_pod.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref());
        let memory = of_pod.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref());
        println!("  pod: {} ns, {} bytes", number(cpu), number(memory));
        ensure!(number(cpu) > 0 && number(memory) > 0, "{of_pod:?}");
        let eth0 = of_pod
            .network
            .and_then(|network| network.default_interface)
            .context("no interface")?;
        let (received, sent) = (number(eth0.rx_bytes.as_ref()), number(eth0.tx_bytes.as_ref()));
        println!("  {}: {received} bytes received, {sent} sent", eth0.name);
        ensure!(received > 0 && sent > 1_000_000, "{eth0:?}");
        pod.end()
    });
    lab.until("the pod's cgroup is empty", SERVES_WITHIN, || fs::remove_dir(&cgroup).ok())?;
    result
}

fn probes(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("probes"))?;
        let id = pod.run(&idle("web"))?;
        let address = pod.addresses()?.into_iter().next().context("the pod has no address")?;
        let socket: SocketAddr = format!("{address}:80").parse().context("no socket's address")?;
        let tcp = || TcpStream::connect_timeout(&socket, PROBE);
        let ready = ["sh", "-c", "test -e /tmp/ready || { echo not yet; exit 1; }"];

        let ended = pod.exec(&id, &ready, 10)?;
        ensure!((ended.exit_code, &ended.stdout[..]) == (1, b"not yet\n"), "{ended:?}");
        match tcp() {
            Ok(_) => bail!("a connection before the server listens"),
            Err(error) => ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}"),
        }
        ensure!(get(&socket.to_string()).is_err(), "an answer before the server listens");

        serve(&pod, &id, 80, "well")?;
        pod.output(&id, &["touch", "/tmp/ready"])?;
        ensure!(pod.exec(&id, &ready, 10)?.exit_code == 0, "the exec probe still fails");
        lab.until("the server", SERVES_WITHIN, || tcp().ok())?;
        ensure!(get(&socket.to_string())? == "well");

        // A probe that hangs ends at its time limit, and the next one is not behind it.
        ends_in_time(&pod, &id, &["sleep", "1000"], 2)?;
        ensure!(pod.exec(&id, &ready, 10)?.exit_code == 0, "the probe after one that hung fails");

        pod.output(&id, &["sh", "-c", "busybox killall httpd"])?;
        lab.until("a refused connection", SERVES_WITHIN, || {
            tcp().err().filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        })?;
        pod.end()
    })
}

/// An exec that hangs ends at its time limit, and not at the story's. It starts no other process: containerd waits for whoever has
/// its outputs.
fn ends_in_time(pod: &RunningPod<'_>, id: &str, command: &[&str], limit: i64) -> Result<()> {
    let began = Instant::now();
    match pod.exec(id, command, limit) {
        Ok(ended) => bail!("{command:?} ended with {ended:?}"),
        Err(status) => ensure!(status.code() == tonic::Code::DeadlineExceeded, "{status:?}"),
    }
    let took = began.elapsed();
    println!("  an exec with a limit of {limit} s ended after {:.1} s", took.as_secs_f32());
    ensure!(took < TIMES_OUT_WITHIN, "an exec with a limit of {limit} s ended after {took:?}");
    Ok(())
}

fn hooks(lab: &Lab) -> Result<()> {
    const GRACE: i64 = 60;
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("hooks"))?;
        let script = "trap 'echo at the end: $(cat /tmp/started /tmp/stopping 2>&1); exit 4' TERM; while :; do sleep 0.2; done";
        let container = |name: &str| PodContainer::new(name, BUSYBOX, &["sh", "-c", script]);
        let said = |name: &str| {
            lab.until("the last words", SERVES_WITHIN, || {
                let log = pod.log(name).ok()?;
                Some(log.lines().find_map(|line| line.split_once("at the end: "))?.1.to_owned())
            })
        };

        let patient = pod.run(&container("patient"))?;
        // postStart, which the kubelet runs as soon as the container has started.
        pod.output(&patient, &["sh", "-c", "echo begun >/tmp/started"])?;
        let began = Instant::now();
        let hook = pod.exec(&patient, &["sh", "-c", "sleep 2; echo drained >/tmp/stopping"], GRACE)?;
        ensure!(hook.exit_code == 0, "{hook:?}");
        pod.stop(&patient, GRACE - began.elapsed().as_secs() as i64)?;
        ensure!(pod.exited(&patient)?.exit_code == 4, "it did not end by SIGTERM");
        let words = said("patient")?;
        ensure!(words == "begun drained", "SIGTERM came before the hook's end: {words}");

        // The kubelet ends a hook with the grace, and gives the container two seconds more.
        let hurried = pod.run(&container("hurried"))?;
        pod.output(&hurried, &["sh", "-c", "echo begun >/tmp/started"])?;
        ends_in_time(
            &pod,
            &hurried,
            &["sh", "-c", "trap 'echo drained >/tmp/stopping' EXIT; while :; do :; done"],
            3,
        )?;
        pod.stop(&hurried, 20)?;
        ensure!(pod.exited(&hurried)?.exit_code == 4, "it did not end by SIGTERM");
        let words = said("hurried")?;
        ensure!(words.starts_with("begun cat:"), "the hook that was ended went on: {words}");
        pod.end()
    })
}

fn children(lab: &Lab) -> Result<()> {
    ensure!(
        lab.runtime() == Runtime::Casemate,
        "the pods' own process on runc is a tail, which reaps nothing"
    );
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("children").namespaces(|ns| ns.pid = k8s_cri::v1::NamespaceMode::Pod.into()))?;
        let one = pod.run(&PodContainer::new("one", BUSYBOX, IDLE).shares_pids())?;
        let two = pod.run(&PodContainer::new("two", BUSYBOX, IDLE).shares_pids())?;
        let script = format!("n=0; while [ $n -lt {ORPHANS} ]; do n=$((n+1)); (sleep 1 >/dev/null 2>&1 &); done");
        pod.output(&one, &["sh", "-c", &script])?;
        // Each is alive, gone or waits to be reaped.
        let left = || {
            pod.output(&two, &["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep -c '(sleep)'"])
                .ok()
        };
        let zombies = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true";
        lab.until("the orphans are gone", SERVES_WITHIN, || left().filter(|count| count == "2"))?;
        ensure!(pod.output(&two, &["sh", "-c", zombies])? == "0", "zombies stay");
        // Orphans of a container that ends while they run go with it.
        let orphan = "(sleep 1000 >/dev/null 2>&1 &)";
        pod.output(&one, &["sh", "-c", &format!("{orphan}; {orphan}")])?;
        pod.stop(&one, 10)?;
        ensure!(pod.exited(&one)?.exit_code == 0);
        lab.until("its orphans are gone", SERVES_WITHIN, || left().filter(|count| count == "1"))?;
        pod.end()
    })
}
