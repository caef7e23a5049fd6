//! Faults of the emulated processor, which are rare ([`crate::testbed::machine`] explains them), and how to distinguish
//! them from a story's failure. Without evidence of such a fault a story fails.

use crate::testbed::machine::{CONSOLE, Stuck, VMM_CONSOLE};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What consoles show after a fault of the emulated processor. No story crashes L1's kernel, and a guest that boots a thousand times
/// the same way does not panic by itself.
const ON_CONSOLE: &[(&str, &str)] = &[
    (CONSOLE, "Kernel panic - not syncing"),
    (CONSOLE, "BUG: "),
    (VMM_CONSOLE, "triple fault in the guest"),
    (VMM_CONSOLE, "Kernel panic - not syncing"),
];

/// Evidence that the emulator failed during a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A console shows one of the fault's messages.
    OnConsole {
        /// Name of the console's file.
        file: &'static str,
        /// The message.
        words: &'static str,
    },
    /// The machine hung: no console and no output grew for this time.
    Hung(Duration),
}

impl Fault {
    /// The fault behind a story's failure with `message`, if the machine's files in `dir` or the message show one.
    pub fn of_failure(dir: &Path, message: &str) -> Option<Self> {
        let shows = |name: &str, words: &str| {
            let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
            bytes.windows(words.len()).any(|window| window == words.as_bytes())
        };
        ON_CONSOLE
            .iter()
            // A VM's console is removed with the VM, perhaps before it was copied; the shim's error contains its last lines.
            .find(|(file, words)| shows(file, words) || *file == VMM_CONSOLE && message.contains(words))
            .map(|&(file, words)| Self::OnConsole { file, words })
    }

    /// The fault behind a machine that did not answer. If it still wrote something or exited, a console must show the fault.
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
    fn a_failure_without_evidence_is_a_failure_of_the_story() {
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
