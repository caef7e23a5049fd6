//! What is promised of pods, and the stories that show each item: one without a story, or with one that does not pass, fails `make test`.

/// A promise.
pub struct Item {
    /// What people do, or get.
    pub name: &'static str,
    /// Names of the stories that show it.
    pub stories: &'static [&'static str],
}

/// Every item, in the order of the table.
pub const ITEMS: &[Item] = &[
    item("grouping by CRI's annotations, the built-in pause", &["pod-grouping"]),
    item("a policy of two containers; five changes denied", &["pod-policy"]),
    item("the Sandbox API", &["sandbox-api", "pod-sandbox-api"]),
    item("IPv4, IPv6, MTU, published ports", &["pod-network"]),
    item("a network made between Create and Start", &["ctr-cni"]),
    item("hosts, hostname, resolv.conf, /dev/shm", &["pod-files"]),
    item("parameters of the kernel", &["pod-sysctls"]),
    item("port-forward", &["pod-port-forward"]),
    item("namespaces and directories of the host refused", &["pod-refused"]),
    item("devices of the host refused", &["pod-refused-devices"]),
    item("seccomp, capabilities, users, read-only roots", &["pod-security"]),
    item("exec: codes, outputs, time-outs", &["pod-exec"]),
    item("exec with input and a terminal, resized", &["pod-exec-streams"]),
    item("attach", &["pod-attach"]),
    item("cp of large trees both ways", &["pod-copy"]),
    item("logs complete at exit and through rotation", &["pod-logs", "pod-log-rotation"]),
    item("probes by exec, TCP, HTTP", &["pod-probes"]),
    item("restarts in any order", &["pod-restart"]),
    item("processes shared, orphans reaped", &["pod-children"]),
    item("graceful termination, preStop hooks", &["pod-termination", "pod-hooks"]),
    item("OOM of one container, its neighbour lives", &["pod-oom"]),
    item("statistics of containers and pods", &["pod-stats"]),
    item("an image that the guest pulls itself", &["pod-guest-pull"]),
];

const fn item(name: &'static str, stories: &'static [&'static str]) -> Item {
    Item { name, stories }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lab::Runtime, stories};

    #[test]
    fn every_item_has_stories_and_every_story_of_pods_an_item() {
        for item in ITEMS {
            assert!(!item.stories.is_empty(), "{} has no story", item.name);
            for name in item.stories {
                let story = stories::find(name).unwrap_or_else(|| panic!("{}: no story is called {name}", item.name));
                assert!(story.runtimes.contains(&Runtime::Casemate), "{name} does not run on casemate");
            }
        }
        let shown = |name: &str| ITEMS.iter().any(|item| item.stories.contains(&name));
        let missing: Vec<_> = stories::all()
            .map(|story| story.name)
            .filter(|name| name.starts_with("pod-") && !shown(name))
            .collect();
        assert!(missing.is_empty(), "no item names {missing:?}");
    }
}
