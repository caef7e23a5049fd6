//! Counters of a sandbox: those of its VMM, which is what the host pays for the whole pod.
//!
//! They are the process's own, since its cgroup is not always one of its own: where the pod's does not exist it is the shim's.

use crate::task;
use agent_protocol::ContainerStatsResponse;
use containerd_shim_protos::sandbox_api::SandboxMetricsResponse;
use protobuf::well_known_types::timestamp::Timestamp;
use std::{collections::HashMap, fs};

/// Microseconds of a tick of /proc (`USER_HZ` is 100 on x86-64).
const TICK_USEC: u64 = 10_000;
/// Places of user and system time in /proc/pid/stat behind the name (proc_pid_stat(5): fields 14 and 15).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// The counters of the VMM with process id `pid`, under the names of a cgroup's files; those of a process that has ended are missing.
pub fn of(id: String, pid: u32) -> protobuf::Result<SandboxMetricsResponse> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stats = ContainerStatsResponse {
        counters: counters(&read("status"), &read("stat")),
        ..Default::default()
    };
    let mut response = SandboxMetricsResponse::new();
    let metrics = response.metrics.mut_or_insert_default();
    metrics.id = id;
    metrics.timestamp = Some(Timestamp::now()).into();
    metrics.data = Some(task::metrics(&stats)?).into();
    Ok(response)
}

fn counters(status: &str, stat: &str) -> HashMap<String, u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1024)
    };
    // The name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let time = |place: usize| fields.get(place)?.parse::<u64>().ok()?.checked_mul(TICK_USEC);
    let (user, system) = (time(USER_TIME), time(SYSTEM_TIME));
    let found = [
        ("memory.current", kib("VmRSS")),
        ("memory.peak", kib("VmHWM")),
        ("cpu.stat/user_usec", user),
        ("cpu.stat/system_usec", system),
        ("cpu.stat/usage_usec", user.zip(system).map(|(user, system)| user + system)),
    ];
    found
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_the_counters_of_a_cgroup() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0";
        let found = counters("Name:\ta) b\nVmHWM:\t      8 kB\nVmRSS:\t       4 kB\n", stat);
        let expected = [
            ("memory.current", 4096),
            ("memory.peak", 8192),
            ("cpu.stat/user_usec", 300_000),
            ("cpu.stat/system_usec", 120_000),
            ("cpu.stat/usage_usec", 420_000),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into());
        assert!(counters("", "").is_empty() && counters("VmRSS: x kB", "7 (a").is_empty());
        let answer = of("pod".to_owned(), std::process::id()).unwrap();
        assert_eq!(answer.metrics.data.type_url, "io.containerd.cgroups.v2.Metrics");
    }
}
