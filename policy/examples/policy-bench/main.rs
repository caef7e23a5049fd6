//! Times of decisions by size of the policy, beside the straightforward use of the interpreter; `--json` prints rows for machines,
//! `--quick` leaves the largest policies out.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use policy::action::{Action, CreateContainer, ExecInContainer, GetProperties, IdName, MountDevice, MountOverlay, UnmountDevice};
use policy::naive::Naive;
use policy::{ContainerId, Enforcer, POINTS, RootHash, data};
use serde_json::{Value, json};

/// Containers in the policies.
const SIZES: &[usize] = &[1, 10, 100, 1000];
/// Layers of a container.
const LAYERS: usize = 4;
/// Decisions after which memory may not have grown.
const MANY_DECISIONS: usize = 100_000;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let json = std::env::args().any(|argument| argument == "--json");
    let quick = std::env::args().any(|argument| argument == "--quick");
    let mut rows = Vec::new();
    for (family, shared) in [("DISTINCT", false), ("SHARED LAYERS", true)] {
        for size in SIZES.iter().filter(|size| !quick || **size < 1000) {
            rows.push(row(family, *size, shared)?);
        }
    }
    let growth = growth()?;
    if json {
        println!("{}", json!({"rows": rows, "memory": growth}));
    } else {
        print(&rows, &growth);
    }
    Ok(())
}

/// The layer of a container; with shared layers they all have the first one's.
fn layer(container: usize, index: usize, shared: bool) -> [u8; 32] {
    let mut hash = [index as u8 + 1; 32];
    hash[..8].copy_from_slice(&(if shared { 0 } else { container as u64 }).to_be_bytes());
    hash
}

fn policy(size: usize, shared: bool) -> String {
    let mut text = String::from("package policy\n\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\ncontainers := [\n");
    for container in 0..size {
        let layers: Vec<String> = (0..LAYERS).map(|index| hex(&layer(container, index, shared))).collect();
        let container = json!({
            "command": ["/bin/app", format!("--instance={container}"), "--config=/etc/app/config.yaml"],
            "env_rules": [
                {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
                {"pattern": "TERM=xterm", "strategy": "string", "required": false},
                {"pattern": format!("INSTANCE={container}"), "strategy": "string", "required": false},
                {"pattern": "KUBERNETES_[A-Z_0-9]+=.*", "strategy": "re2", "required": false},
                {"pattern": "NODE_[A-Z]+=.+", "strategy": "re2", "required": false},
            ],
            "layers": layers,
            "mounts": [
                {"destination": "/etc/resolv.conf", "options": ["rbind", "rshared", "rw"], "source": "sandbox:///tmp/atlas/resolvconf/.+", "type": "bind"},
                {"destination": "/data", "options": ["rbind", "rshared", "ro"], "source": format!("sandbox:///data/{container}"), "type": "bind"},
            ],
            "exec_processes": [{"command": ["/bin/sh", "-c", "true"], "signals": [9]}, {"command": ["/bin/probe"], "signals": []}],
            "signals": [9, 15],
            "user": {"user_idname": {"pattern": "", "strategy": "any"}, "group_idnames": [{"pattern": "", "strategy": "any"}], "umask": "0022"},
            "capabilities": data::unprivileged_capabilities(),
            "seccomp_profile_sha256": "",
            "allow_elevated": false,
            "working_dir": "/",
            "allow_stdio_access": true,
            "no_new_privileges": false,
        });
        let _ = writeln!(text, "    {container},");
    }
    text.push_str(
        "]\n\nallow_properties_access := true\nallow_environment_variable_dropping := true\nallow_capability_dropping := true\n\n",
    );
    for point in POINTS {
        let _ = writeln!(text, "{0} := data.framework.{0}", point.name);
    }
    text.push_str("reason := data.framework.reason\n");
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn target(index: usize) -> String {
    format!("/run/mounts/scsi/m{index}")
}

/// The requests about one container.
struct Requests {
    container: usize,
    shared: bool,
}

impl Requests {
    fn id(&self) -> ContainerId {
        ContainerId::new("bench")
    }

    fn mount(&self, index: usize) -> MountDevice {
        MountDevice::new(target(index), RootHash::new(&layer(self.container, index, self.shared)))
    }

    fn overlay(&self) -> MountOverlay {
        MountOverlay {
            container_id: self.id(),
            layer_paths: (0..LAYERS).rev().map(target).collect(),
            target: format!("/run/gcs/c/{}/rootfs", self.id().as_hex()),
        }
    }

    fn create(&self) -> CreateContainer {
        let container = self.container;
        CreateContainer {
            container_id: self.id(),
            arg_list: vec![
                "/bin/app".into(),
                format!("--instance={container}"),
                "--config=/etc/app/config.yaml".into(),
            ],
            env_list: vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                "TERM=xterm".into(),
                format!("INSTANCE={container}"),
                "KUBERNETES_SERVICE_HOST=10.0.0.1".into(),
                "UNKNOWN=1".into(),
            ],
            working_dir: "/".into(),
            sandbox_dir: "/run/gcs/c/s/sandboxMounts".into(),
            huge_pages_dir: "/run/gcs/c/s/hugepages".into(),
            mounts: vec![policy::action::Mount {
                destination: "/data".into(),
                options: Some(vec!["rbind".into(), "rshared".into(), "ro".into()]),
                source: format!("/run/gcs/c/s/sandboxMounts/data/{container}"),
                kind: "bind".into(),
            }],
            devices: Vec::new(),
            privileged: false,
            no_new_privileges: false,
            user: IdName::new(0, "root"),
            groups: vec![IdName::new(0, "root")],
            umask: "0022".into(),
            capabilities: Some(data::unprivileged_capabilities()),
            seccomp_profile_sha256: String::new(),
            is_sandbox_container: false,
        }
    }

    fn create_denied(&self) -> CreateContainer {
        CreateContainer {
            arg_list: vec!["/bin/other".into()],
            ..self.create()
        }
    }

    fn exec(&self) -> ExecInContainer {
        let create = self.create();
        ExecInContainer {
            container_id: self.id(),
            arg_list: vec!["/bin/probe".into()],
            env_list: create.env_list,
            working_dir: create.working_dir,
            no_new_privileges: false,
            user: create.user,
            groups: create.groups,
            umask: create.umask,
            capabilities: create.capabilities,
        }
    }
}

/// Median time of `act`, which gives the time of what counts.
fn median(rounds: usize, mut act: impl FnMut() -> Result<Duration, Error>) -> Result<f64, Error> {
    let mut times = (0..rounds).map(|_| act()).collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e3)
}

/// Both ways to judge the same requests.
struct Judges {
    ours: Enforcer,
    naive: Naive,
    rounds: usize,
    cells: Vec<Value>,
}

impl Judges {
    /// Times a decision both ways, undone every time, and then makes it.
    fn decide<A: Action + Clone>(&mut self, name: &str, action: &A, allowed: bool) -> Result<(), Error> {
        let input = serde_json::to_value(action)?;
        let ours = median(self.rounds, || {
            let asked = action.clone();
            let start = Instant::now();
            let decision = self.ours.enforce(asked);
            let time = start.elapsed();
            assert_eq!(decision.is_ok(), allowed, "{name}");
            Ok(time)
        })?;
        let naive = median(self.rounds.div_ceil(4), || {
            let asked = input.clone();
            let start = Instant::now();
            let decision = self.naive.enforce(A::POINT, asked, false)?;
            let time = start.elapsed();
            assert_eq!(decision, allowed, "{name}");
            Ok(time)
        })?;
        self.cells.push(json!({"name": name, "ms": ours, "naive_ms": naive}));
        if allowed {
            self.make(action)?;
        }
        Ok(())
    }

    fn make<A: Action + Clone>(&mut self, action: &A) -> Result<(), Error> {
        self.ours.enforce(action.clone())?.commit();
        self.naive.enforce(A::POINT, serde_json::to_value(action)?, true)?;
        Ok(())
    }
}

fn row(family: &str, size: usize, shared: bool) -> Result<Value, Error> {
    let text = policy(size, shared);
    let rounds: usize = if size >= 1000 { 7 } else { 20 };
    let before = resident_kib();
    let enforcer = Enforcer::new(&text)?;
    let kib = resident_kib().saturating_sub(before);
    let load = median(rounds.div_ceil(2), || {
        let start = Instant::now();
        let enforcer = Enforcer::new(&text)?;
        let time = start.elapsed();
        drop(enforcer);
        Ok(time)
    })?;
    let naive_load = median(rounds.div_ceil(4), || {
        let start = Instant::now();
        let naive = Naive::new(&text)?;
        let time = start.elapsed();
        drop(naive);
        Ok(time)
    })?;
    let mut judges = Judges {
        ours: enforcer,
        naive: Naive::new(&text)?,
        rounds,
        cells: vec![json!({"name": "load", "ms": load, "naive_ms": naive_load})],
    };
    let requests = Requests {
        container: size - 1,
        shared,
    };
    judges.decide("mount_device", &requests.mount(0), true)?;
    for index in 1..LAYERS {
        judges.make(&requests.mount(index))?;
    }
    judges.decide("mount_overlay", &requests.overlay(), true)?;
    judges.decide("create deny (+reason)", &requests.create_denied(), false)?;
    judges.decide("create_container", &requests.create(), true)?;
    judges.decide("exec_in_container", &requests.exec(), true)?;
    judges.decide("get_properties", &GetProperties {}, true)?;
    Ok(json!({"family": family, "containers": size, "policy_kb": text.len() / 1000, "memory_kib": kib, "cells": judges.cells}))
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

/// Memory before and after many decisions that end where they began.
fn growth() -> Result<Value, Error> {
    let mut enforcer = Enforcer::new(&policy(10, false))?;
    let requests = Requests {
        container: 0,
        shared: false,
    };
    let mut cycle = |count: usize| -> Result<(), Error> {
        for _ in 0..count / 4 {
            enforcer.enforce(requests.mount(0))?.commit();
            drop(enforcer.enforce(requests.mount(1))?);
            assert!(enforcer.enforce(requests.overlay()).is_err());
            let unmount = UnmountDevice { unmount_target: target(0) };
            enforcer.enforce(unmount)?.commit();
        }
        Ok(())
    };
    cycle(MANY_DECISIONS / 10)?;
    let before = resident_kib();
    cycle(MANY_DECISIONS)?;
    Ok(json!({"decisions": MANY_DECISIONS, "before_kib": before, "after_kib": resident_kib()}))
}

fn print(rows: &[Value], growth: &Value) {
    let mut family = "";
    for row in rows {
        let cells = row["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
        if row["family"] != family {
            family = row["family"].as_str().unwrap_or_default();
            let names: Vec<&str> = cells.iter().filter_map(|cell| cell["name"].as_str()).collect();
            println!("\n{family}, median ms (straightforward use of the interpreter)");
            println!("| containers | policy KB | memory KiB | {} |", names.join(" | "));
            println!("|{}", "---|".repeat(names.len() + 3));
        }
        let times: Vec<String> = cells
            .iter()
            .map(|cell| {
                format!(
                    "{:.3} ({:.1})",
                    cell["ms"].as_f64().unwrap_or(0.0),
                    cell["naive_ms"].as_f64().unwrap_or(0.0)
                )
            })
            .collect();
        println!(
            "| {} | {} | {} | {} |",
            row["containers"],
            row["policy_kb"],
            row["memory_kib"],
            times.join(" | ")
        );
    }
    println!(
        "\nmemory over {} decisions: {} KiB before, {} KiB after",
        growth["decisions"], growth["before_kib"], growth["after_kib"]
    );
}
