//! Pods, by the protocol of the kubelet: what their containers share, and what they do not.

pub mod confinement;
pub mod health;
pub mod streams;

use crate::{
    lab::{
        Ended, IMAGES, Lab, Policy,
        cri::{Answer, Cri, Pod, PodContainer, RunningPod, get, stream::Session},
    },
    stories::story::{BOTH, Machines, OURS, Story},
    testbed::images::{BUSYBOX, BUSYBOX_CHANGED, REDIS, file_name},
};
use anyhow::{Context, Result, bail, ensure};
use k8s_cri::v1::ContainerConfig;
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    pod(
        "pod-grouping",
        "containers of a pod share network, ipc and host name, and no processes unless asked to",
        BOTH,
        grouping,
    ),
    pod(
        "pod-files",
        "hosts, hostname, resolv.conf and shared memory are the pod's, one of each",
        BOTH,
        files,
    ),
    pod(
        "pod-network",
        "a pod reaches the node, another pod and is reached, with the MTU of its interface; a port is published",
        BOTH,
        network,
    ),
    pod(
        "pod-sysctls",
        "parameters of the kernel that a pod asks for hold in its containers; one of the whole guest is refused by name",
        BOTH,
        sysctls,
    ),
    pod(
        "pod-restart",
        "a container is replaced in a running pod, in any order",
        BOTH,
        restart,
    ),
    pod(
        "pod-exec",
        "exec has exit codes and both outputs, and a time-out ends it",
        BOTH,
        exec,
    ),
    pod("pod-logs", "the log is complete at exit", BOTH, logs),
    pod(
        "pod-termination",
        "a container gets SIGTERM, its period of grace, and SIGKILL",
        BOTH,
        termination,
    ),
    pod(
        "pod-port-forward",
        "a connection to the pod's loopback reaches the container that listens",
        BOTH,
        port_forward,
    ),
    pod(
        "pod-policy",
        "a pod runs under a generated policy, and what differs from it is denied by rule and field",
        OURS,
        policy,
    ),
    pod("pod-refused", "what a VM cannot give is refused by name", OURS, refused),
];

const fn pod(name: &'static str, about: &'static str, runtimes: &'static [crate::lab::Runtime], run: fn(&Lab) -> Result<()>) -> Story {
    Story {
        name,
        about,
        runtimes,
        set: crate::lab::Set::Short,
        machines: Machines::Shared,
        run,
    }
}

/// A server in an emulated machine is up within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// Does nothing until it is told to end.
pub const IDLE: &[&str] = &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"];

/// A container that does nothing.
pub fn idle(name: &str) -> PodContainer {
    PodContainer::new(name, BUSYBOX, IDLE)
}

/// Runs `story` on a containerd that has busybox and `images`, and shows containerd's log where it fails.
fn with_cri(lab: &Lab, images: &[&str], story: impl FnOnce(&Cri) -> Result<()>) -> Result<()> {
    let cri = Cri::start(lab.runtime(), &[&[BUSYBOX], images].concat())?;
    let result = story(&cri);
    if result.is_err() {
        cri.show_log();
    }
    result?;
    drop(cri);
    lab.nothing_is_left()
}

fn grouping(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("grouping"))?;
        let (one, two) = (pod.run(&idle("one"))?, pod.run(&idle("two"))?);
        for kind in ["net", "ipc", "uts"] {
            let of = |id: &str| pod.output(id, &["stat", "-Lc", "%i", &format!("/proc/self/ns/{kind}")]);
            ensure!(of(&one)? == of(&two)?, "namespace {kind} is not shared");
        }
        let seen = pod.output(&one, &["ps"])?;
        ensure!(!seen.contains("tail -f"), "the pod's own container is seen: {seen}");
        ensure!(pod.output(&two, &["hostname"])? == "grouping");
        // What one serves on loopback the other reaches.
        serve(&pod, &one, 8081, "from one")?;
        ensure!(fetch(&pod, &two, "127.0.0.1", 8081)? == "from one");
        pod.end()?;

        let pod = cri.run(Pod::new("sharing").namespaces(|ns| ns.pid = k8s_cri::v1::NamespaceMode::Pod.into()))?;
        let one = pod.run(&idle("one").shares_pids())?;
        let two = pod.run(&idle("two").shares_pids())?;
        let first = pod.output(&two, &["cat", "/proc/1/cmdline"])?;
        ensure!(!first.starts_with("sh"), "the first process is the container's own: {first}");
        let seen = pod.output(&one, &["ps"])?;
        ensure!(
            seen.matches("trap").count() == 2,
            "both containers' processes should be seen: {seen}"
        );
        pod.end()
    })
}

/// Serves a text by HTTP in a container.
fn serve(pod: &RunningPod<'_>, container: &str, port: u16, text: &str) -> Result<()> {
    let script = format!("mkdir -p /tmp/www{port} && echo '{text}' >/tmp/www{port}/index.html && httpd -p {port} -h /tmp/www{port}");
    pod.output(container, &["sh", "-c", &script]).map(drop)
}

/// A request by hand: the wget of a static busybox needs libraries to look up names.
fn request(program: &str, address: &str, port: u16, path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | {program} {address} {port}")
}

/// What a container gets by HTTP.
fn fetch(pod: &RunningPod<'_>, container: &str, address: &str, port: u16) -> Result<String> {
    let script = format!("{} | sed '1,/^.$/d'", request("nc -w 20", address, port, "/"));
    pod.output(container, &["sh", "-c", &script])
}

fn files(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("files"))?;
        let (one, two) = (pod.run(&idle("one"))?, pod.run(&idle("two"))?);
        let resolv = pod.output(&one, &["cat", "/etc/resolv.conf"])?;
        for line in ["search stories.svc.cluster.local", "nameserver 10.96.0.10", "options ndots:5"] {
            ensure!(resolv.lines().any(|found| found == line), "{line} is not in {resolv}");
        }
        ensure!(pod.output(&one, &["cat", "/etc/hostname"])? == "files");
        ensure!(pod.output(&one, &["cat", "/etc/hosts"])?.contains("localhost"));
        let size = pod.output(&one, &["df", "-k", "/dev/shm"])?;
        ensure!(size.contains(" 65536 "), "shared memory has not 64 MiB: {size}");
        pod.output(&one, &["sh", "-c", "echo shared >/dev/shm/x; echo '10.0.0.9 added' >>/etc/hosts"])?;
        ensure!(pod.output(&two, &["cat", "/dev/shm/x"])? == "shared");
        ensure!(pod.output(&two, &["tail", "-n", "1", "/etc/hosts"])? == "10.0.0.9 added");
        pod.end()
    })
}

fn network(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let server = cri.run(Pod::new("server").publishes(8088, 80))?;
        let client = cri.run(Pod::new("client"))?;
        let (web, shell) = (server.run(&idle("web"))?, client.run(&idle("shell"))?);
        serve(&server, &web, 80, "of the pod")?;
        let addresses = server.addresses()?;
        let [v4, v6] = &addresses[..] else {
            bail!("the pod has addresses {addresses:?}")
        };
        ensure!(get(&format!("{v4}:80"))? == "of the pod", "from the node");
        ensure!(get(&format!("[{v6}]:80"))? == "of the pod", "from the node by IPv6");
        ensure!(fetch(&client, &shell, v4, 80)? == "of the pod", "from pod to pod");
        ensure!(fetch(&client, &shell, v6, 80)? == "of the pod", "from pod to pod by IPv6");
        let link = server.output(&web, &["ip", "link", "show", "eth0"])?;
        ensure!(link.contains("mtu 1400"), "{link}");
        let shown = server.output(&web, &["ip", "addr", "show", "eth0"])?;
        ensure!(shown.contains(v4) && shown.contains(v6.as_str()), "{shown}");
        // The node's own address, as DNAT sees it: loopback needs route_localnet.
        ensure!(get("10.88.0.1:8088")? == "of the pod", "by the published port");
        // A stream larger than any buffer, each way.
        let megabytes = |pod: &RunningPod<'_>, id: &str, command: &str| pod.output(id, &["sh", "-c", command]);
        megabytes(&server, &web, "head -c 8000000 /dev/zero >/tmp/www80/zero")?;
        let count = megabytes(&client, &shell, &format!("{} | wc -c", request("nc", v4, 80, "/zero")))?;
        let arrived: u64 = count.trim().parse().context("no count")?;
        ensure!(arrived > 8_000_000, "{arrived} bytes arrived");
        client.end()?;
        server.end()
    })
}

fn sysctls(lab: &Lab) -> Result<()> {
    // containerd 2 sets the first two for every pod.
    let asked = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
        ("kernel.shm_rmid_forced", "1"),
    ];
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("sysctls").sysctls(&asked))?;
        let shell = pod.run(&idle("shell"))?;
        for (name, value) in asked {
            let file = format!("/proc/sys/{}", name.replace('.', "/"));
            let found = pod.output(&shell, &["cat", &file])?;
            ensure!(found.split_whitespace().eq(value.split_whitespace()), "{name} is {found:?}");
        }
        pod.end()?;
        match cri.run(Pod::new("of-the-kernel").sysctls(&[("net.core.netdev_max_backlog", "9")])) {
            Ok(_) => bail!("a parameter of the whole kernel was taken"),
            Err(status) => ensure!(status.message().contains("netdev_max_backlog"), "{status:?}"),
        }
        Ok(())
    })
}

fn restart(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("restart"))?;
        let (one, two) = (pod.run(&idle("one"))?, pod.run(&idle("two"))?);
        for (round, old) in [one, two].iter().enumerate() {
            pod.stop(old, 10)?;
            let status = pod.exited(old)?;
            ensure!(status.exit_code == 0, "SIGTERM ended it with {}", status.exit_code);
            let new = idle(&format!("new{round}")).with(|config| {
                if let Some(metadata) = &mut config.metadata {
                    metadata.attempt = 1;
                }
            });
            let new = pod.run(&new)?;
            pod.remove(old)?;
            ensure!(pod.output(&new, &["echo", "again"])? == "again");
        }
        pod.end()
    })
}

fn exec(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("exec"))?;
        let id = pod.run(&idle("one"))?;
        let ended = pod.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 7"], 0)?;
        ensure!(
            (ended.exit_code, &ended.stdout[..], &ended.stderr[..]) == (7, b"out\n", b"err\n"),
            "{ended:?}"
        );
        match pod.exec(&id, &["sh", "-c", "echo $$ >/tmp/pid; exec sleep 1000"], 3) {
            Ok(ended) => bail!("an exec that sleeps ended with {ended:?}"),
            Err(status) => ensure!(status.code() == tonic::Code::DeadlineExceeded, "{status:?}"),
        }
        let left = pod.output(&id, &["sh", "-c", "kill -0 $(cat /tmp/pid) 2>/dev/null && echo lives || echo gone"])?;
        ensure!(left == "gone", "the exec {left}");
        pod.end()
    })
}

fn logs(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("logs"))?;
        let writer = PodContainer::new("writer", BUSYBOX, &["sh", "-c", "seq 1 5000; echo last >&2; exit 3"]);
        let id = pod.run(&writer)?;
        let status = pod.exited(&id)?;
        ensure!((status.exit_code, status.reason.as_str()) == (3, "Error"), "{status:?}");
        // containerd itself writes the log, after it has said that the container exited.
        let log = lab.until("the whole log", SERVES_WITHIN, || {
            pod.log("writer").ok().filter(|log| log.lines().count() >= 5001)
        })?;
        ensure!(log.lines().count() == 5001, "the log has {} lines", log.lines().count());
        ensure!(log.lines().any(|line| line.ends_with("stdout F 5000")), "the last line is missing");
        ensure!(log.lines().any(|line| line.ends_with("stderr F last")));
        pod.end()
    })
}

fn termination(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("termination"))?;
        let slow = PodContainer::new(
            "slow",
            BUSYBOX,
            &["sh", "-c", "trap 'sleep 2; exit 5' TERM; while :; do sleep 1; done"],
        );
        let deaf = PodContainer::new("deaf", BUSYBOX, &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
        let (slow, deaf) = (pod.run(&slow)?, pod.run(&deaf)?);
        pod.stop(&slow, 60)?;
        ensure!(pod.exited(&slow)?.exit_code == 5, "its own handler did not run to its end");
        pod.stop(&deaf, 2)?;
        ensure!(pod.exited(&deaf)?.exit_code == 137);
        pod.end()
    })
}

fn port_forward(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("forward"))?;
        let (web, _other) = (pod.run(&idle("web"))?, pod.run(&idle("other"))?);
        serve(&pod, &web, 8080, "by loopback")?;
        let netns = netns_of(&pod)?;
        let by = |port| {
            format!(
                "{} | sed '1,/^.$/d'",
                request(&format!("nsenter --net={netns} busybox nc -w 20"), "127.0.0.1", port, "/")
            )
        };
        lab.until("the pod's loopback", SERVES_WITHIN, || {
            Ended::of(&["sh", "-c", &by(8080)])
                .ok()
                .filter(|ended| ended.text() == "by loopback")
        })?;
        Ended::of(&["sh", "-c", &by(8079)])?.prints("")?;
        let request = b"GET / HTTP/1.0\r\n\r\n";
        let said = Session::ask(&pod.port_forward(8080)?, 8080, request, SERVES_WITHIN)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(said.ends_with("by loopback\n"), "by containerd's own streams: {said:?}");
        let none = Session::ask(&pod.port_forward(8079)?, 8079, request, SERVES_WITHIN).map(|said| said.len());
        println!("  of a port without a listener: {none:?}");
        ensure!(!none.as_ref().is_ok_and(|bytes| *bytes > 0), "a port without a listener answers");
        pod.end()
    })
}

/// The path of the pod's network namespace, as the CRI says in the sandbox's details.
fn netns_of(pod: &RunningPod<'_>) -> Result<String> {
    let details = pod.details()?;
    let details: serde_json::Value = serde_json::from_str(&details).context("the sandbox's details are no JSON")?;
    let namespaces = details["runtimeSpec"]["linux"]["namespaces"].as_array().context("no namespaces")?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
    let path = network.and_then(|network| network["path"].as_str());
    path.map(str::to_owned).context("the sandbox has no path of its network namespace")
}

/// Two containers: a shell that does nothing, and a server of the pod's loopback.
pub fn two_containers() -> Result<Policy> {
    let image = |reference: &str| format!("{IMAGES}/{}", file_name(reference).trim_end_matches(".tar"));
    let words = |words: &[&str]| serde_json::Value::from(words.to_vec()).to_string();
    Policy::of_config(&format!(
        "allow_properties_access = true\nallow_runtime_logging = true\n[pod]\n\
         [[container]]\nimage_name = \"{BUSYBOX}\"\nimage = \"{}\"\ncommand = {}\nsignals = [9, 15]\nallow_stdio_access = true\nallow_privilege_escalation = true\n\
         [[container.exec_process]]\ncommand = [\"cat\", \"/etc/hostname\"]\nsignals = [9, 15]\n\
         [[container]]\nimage_name = \"{REDIS}\"\nimage = \"{}\"\nsignals = [9, 15]\nallow_stdio_access = true\nallow_privilege_escalation = true\n",
        image(BUSYBOX),
        words(IDLE),
        image(REDIS),
    ))
}

fn policy(lab: &Lab) -> Result<()> {
    let policy = two_containers()?;
    with_cri(lab, &[BUSYBOX_CHANGED, REDIS], |cri| {
        let pod = cri.run(Pod::new("policy").under(&policy))?;
        let shell = pod.run(&idle("shell"))?;
        pod.run(&PodContainer::new("redis", REDIS, &[]))?;
        ensure!(pod.output(&shell, &["cat", "/etc/hostname"])? == "policy");
        let exec = pod.exec(&shell, &["id"], 0);
        denied("exec_in_container", "command", exec.map(|ended| format!("{ended:?}")))?;
        let changed = |change: fn(&mut ContainerConfig)| pod.run(&idle("changed").with(change));
        denied("mount_device", "layer", pod.run(&PodContainer::new("image", BUSYBOX_CHANGED, IDLE)))?;
        denied(
            "create_container",
            "command",
            changed(|config| config.command = vec!["id".to_owned()]),
        )?;
        denied(
            "create_container",
            "SECRET",
            changed(|config| {
                config.envs.push(k8s_cri::v1::KeyValue {
                    key: "SECRET".to_owned(),
                    value: "of the host".to_owned(),
                });
            }),
        )?;
        denied(
            "create_container",
            "working",
            changed(|config| config.working_dir = "/tmp".to_owned()),
        )?;
        pod.end()
    })
}

/// A denial says in its first sentence what was denied, and names its rule.
pub(super) fn denied(rule: &str, field: &str, answer: Answer<String>) -> Result<()> {
    let said = match answer {
        Ok(done) => bail!("{rule} allowed it: {done}"),
        Err(status) => status.message().to_owned(),
    };
    println!("  {}", said.chars().take(300).collect::<String>());
    let (_, sentence) = said
        .split_once("denied by policy: ")
        .with_context(|| format!("no denial: {said}"))?;
    let first = sentence.split_once("policyDecision<").map_or(sentence, |(first, _)| first);
    ensure!(first.contains(rule) && first.contains(field), "{first}");
    Ok(())
}

fn refused(lab: &Lab) -> Result<()> {
    use k8s_cri::v1::NamespaceMode;
    with_cri(lab, &[], |cri| {
        for (what, pod) in [
            ("network", Pod::new("net").namespaces(|ns| ns.network = NamespaceMode::Node.into())),
            ("pid", Pod::new("pid").namespaces(|ns| ns.pid = NamespaceMode::Node.into())),
            ("ipc", Pod::new("ipc").namespaces(|ns| ns.ipc = NamespaceMode::Node.into())),
        ] {
            let said = match cri.run(pod) {
                Ok(_) => bail!("a pod with the host's {what} namespace runs"),
                Err(status) => status.message().to_owned(),
            };
            ensure!(said.contains(&format!("host's {what} namespace")), "{said}");
        }
        let pod = cri.run(Pod::new("mount"))?;
        let mounts = idle("mounts").with(|config| {
            config.mounts.push(k8s_cri::v1::Mount {
                container_path: "/data".to_owned(),
                host_path: "/srv".to_owned(),
                ..Default::default()
            });
        });
        let said = match pod.run(&mounts) {
            Ok(_) => bail!("a directory of the host was mounted"),
            Err(status) => status.message().to_owned(),
        };
        ensure!(said.contains("mount at /data"), "{said}");
        pod.end()
    })
}
