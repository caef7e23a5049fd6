//! The VMM's OOM score. The VMM has the memory of its pod, so the score is the pod's, and not this shim's.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

/// The open `oom_score_adj` of a VMM, which cannot become another process's.
pub struct OomScore {
    file: File,
    /// Lowest of the pod's containers: they end together, so the VM is worth what the one to be spared longest is.
    lowest: Mutex<Option<i32>>,
}

impl OomScore {
    /// For `pid`, a child that is not reaped yet, with the score of its sandbox. Without one it keeps what it inherited from the
    /// shim, as under runc.
    pub fn of(pid: u32, sandbox: Option<i32>) -> io::Result<Self> {
        let score = Self {
            file: OpenOptions::new().write(true).open(format!("/proc/{pid}/oom_score_adj"))?,
            lowest: Mutex::new(None),
        };
        if let Some(value) = sandbox {
            score.set(value);
        }
        Ok(score)
    }

    /// Takes the score of one more container of the pod. The first replaces the sandbox's: CRI gives every sandbox -998, because
    /// with runc only the pause process has it, while kubelet derives those of containers from the pod's class.
    pub fn add_container(&self, score: Option<i32>) {
        let Some(value) = score else { return };
        let mut lowest = self.lowest.lock().unwrap_or_else(PoisonError::into_inner);
        if lowest.is_none_or(|lowest| value < lowest) && self.set(value) {
            *lowest = Some(value);
        }
    }

    /// Best effort, as for cgroups: lowering needs a privilege that an unprivileged shim lacks.
    fn set(&self, value: i32) -> bool {
        let set = (&self.file).write_all(value.to_string().as_bytes());
        if let Err(error) = &set {
            log::warn!("the VMM keeps its OOM score instead of {value}: {error}");
        }
        set.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_first_container_replaces_the_sandboxs_score_and_then_the_lowest_counts() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let score = || std::fs::read_to_string(format!("/proc/{}/oom_score_adj", child.id())).unwrap();
        let inherited = score();
        OomScore::of(child.id(), None).unwrap();
        assert_eq!(score(), inherited);
        let oom = OomScore::of(child.id(), Some(100)).unwrap();
        assert_eq!(score(), "100\n");
        for (container, wanted) in [(None, "100\n"), (Some(1000), "1000\n"), (Some(700), "700\n"), (Some(900), "700\n")] {
            oom.add_container(container);
            assert_eq!(score(), wanted, "{container:?}");
        }
        oom.add_container(Some(i32::MIN));
        assert_eq!(score(), "700\n", "the kernel refuses it");
        child.kill().unwrap();
        child.wait().unwrap();
        // ESRCH.
        oom.add_container(Some(1));
    }
}
