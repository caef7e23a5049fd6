//! Faults of the emulated processor, which are rare ([`crate::testbed::machine`] explains them), and how to tell
//! them from a story's failure. A story fails unless one of these is on record.

use crate::testbed::machine::{CONSOLE, Stuck, VMM_CONSOLE};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What the consoles show when the processor failed. No story crashes L1's kernel, and a guest that boots a thousand times
/// the same way does not panic by itself.
const ON_CONSOLE: &[(&str, &str)] = &[
    (CONSOLE, "Kernel panic - not syncing"),
    (CONSOLE, "BUG: "),
    (VMM_CONSOLE, "triple fault in the guest"),
    (VMM_CONSOLE, "Kernel panic - not syncing"),
];

/// Evidence that the emulator failed under a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A console shows it.
    OnConsole {
        /// The console's file.
        file: &'static str,
        /// What it shows.
        words: &'static str,
    },
    /// The machine hung: no console and no output grew for this long.
    Hung(Duration),
}

impl Fault {
    /// The fault under a story that failed with `message` in a machine whose files of that time are in `dir`.
    pub fn of_failure(dir: &Path, message: &str) -> Option<Self> {
        let shows = |name: &str, words: &str| {
            let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
            bytes.windows(words.len()).any(|window| window == words.as_bytes())
        };
        ON_CONSOLE
            .iter()
            // A VM's console is removed with the VM, maybe before it was copied; the shim reports its last lines.
            .find(|(file, words)| shows(file, words) || *file == VMM_CONSOLE && message.contains(words))
            .map(|&(file, words)| Self::OnConsole { file, words })
    }

    /// The fault under a machine that did not answer. One that still wrote something, or ended, needs a console that shows it.
    pub fn of_stuck(dir: &Path, stuck: Stuck) -> Option<Self> {
        Self::of_failure(dir, "").or(match stuck {
            Stuck::Quiet(silence) => Some(Self::Hung(silence)),
            Stuck::Limit(_) | Stuck::Gone => None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnConsole { file, words } => write!(f, "{words:?} in {file}"),
            Self::Hung(silence) => write!(f, "hung, silent for {silence:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_without_evidence_is_the_storys() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Fault::of_failure(dir.path(), "another exit status"), None);
        std::fs::write(dir.path().join(CONSOLE), "all is well").unwrap();
        assert_eq!(Fault::of_failure(dir.path(), "another exit status"), None);
        assert_eq!(Fault::of_stuck(dir.path(), Stuck::Gone), None);
        assert_eq!(Fault::of_stuck(dir.path(), Stuck::Limit(Duration::from_secs(9))), None);
    }

    #[test]
    fn a_console_a_message_or_silence_is_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let silence = Duration::from_secs(120);
        assert_eq!(Fault::of_stuck(dir.path(), Stuck::Quiet(silence)), Some(Fault::Hung(silence)));
        let triple = Fault::of_failure(dir.path(), "the VM ended: triple fault in the guest").unwrap();
        assert_eq!(triple.to_string(), "\"triple fault in the guest\" in vmm-console.log");
        std::fs::write(dir.path().join(CONSOLE), "x\nKernel panic - not syncing: stack").unwrap();
        for fault in [
            Fault::of_failure(dir.path(), ""),
            Fault::of_stuck(dir.path(), Stuck::Gone),
            Fault::of_stuck(dir.path(), Stuck::Limit(silence)),
        ] {
            assert_eq!(fault.unwrap().to_string(), "\"Kernel panic - not syncing\" in console.log");
        }
    }
}
