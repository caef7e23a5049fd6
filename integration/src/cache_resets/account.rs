//! What the machine says on its console, judged: lines that begin with `cache: ` (`shim/tests/converter/power.rs`).

use anyhow::{Result, bail, ensure};
use std::collections::BTreeSet;
use std::fmt;

/// Beginning of the machine's lines.
const PREFIX: &str = "cache: ";
/// What the kernel says of a file system that it cannot use, and of a program that ends.
const KERNEL_FAULTS: [&str; 3] = ["EXT4-fs error", "Kernel panic", "I/O error"];

/// What must be in the cache, and what the cuts hit.
#[derive(Debug, Default)]
pub struct Account {
    /// Layers that were said to be made, and that nobody has begun to remove since.
    must: BTreeSet<u32>,
    found: BTreeSet<u32>,
    checked: u32,
    boots: u32,
    made: u32,
    interrupted: u32,
    right: u32,
}

impl Account {
    /// The machine is started.
    pub fn boots(&mut self) {
        self.boots += 1;
        self.found.clear();
    }

    /// A line of the console.
    ///
    /// # Errors
    /// If it says that the cache is not as it must be.
    pub fn take(&mut self, line: &str) -> Result<()> {
        ensure!(
            !KERNEL_FAULTS.iter().any(|fault| line.contains(fault)),
            "the machine's kernel: {line}"
        );
        // What the kernel printed last may have no end.
        let Some((_, said)) = line.split_once(PREFIX) else {
            ensure!(!line.contains("panicked at"), "the machine's program: {line}");
            return Ok(());
        };
        let (word, rest) = said.trim_end().split_once(' ').unwrap_or((said.trim_end(), ""));
        match (word, rest.parse::<u32>()) {
            ("unfinished", Ok(files)) => self.interrupted += u32::from(files > 0),
            ("right", Ok(layer)) => {
                self.right += 1;
                self.found.insert(layer);
            }
            ("left", Ok(0)) | ("mounted", _) => {}
            ("checked", _) => {
                let lost: Vec<_> = self.must.difference(&self.found).collect();
                ensure!(lost.is_empty(), "layers that were made before the cut are missing: {lost:?}");
                self.must = std::mem::take(&mut self.found);
                self.checked += 1;
            }
            ("removes", _) => self.must.clear(),
            ("made", Ok(layer)) => {
                self.made += 1;
                self.must.insert(layer);
            }
            _ => bail!("the machine says: {said}"),
        }
        Ok(())
    }

    /// Whether the cuts hit conversions, and found layers afterwards.
    pub fn has_hit(&self) -> bool {
        self.interrupted > 0 && self.right > 0 && self.made > 0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            boots,
            checked,
            made,
            interrupted,
            right,
            ..
        } = self;
        write!(
            f,
            "{boots} boots, {checked} of them to the end of the check; {made} conversions ended, {interrupted} boots found one that had \
             not; {right} layers found right, none wrong"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the lines of boots, which `|` separates.
    fn account(lines: &str) -> Result<Account> {
        let mut account = Account::default();
        for boot in lines.split('|') {
            account.boots();
            for line in boot.split(';') {
                account.take(&format!("{PREFIX}{line}\r"))?;
            }
        }
        Ok(account)
    }

    #[test]
    fn a_layer_that_was_made_must_be_found_until_something_is_removed() {
        let account =
            account("mounted;checked;made 1;made 2|mounted;unfinished 2;right 1;right 2;left 0;checked;removes;made 3|right 3;checked");
        let account = account.unwrap();
        assert!(account.has_hit(), "{account}");
        for lost in [
            "checked;made 1|checked",
            "checked;removes;made 1;made 2|right 2;checked",
            "right 1;checked|checked",
            // A cut before the end of the check does not make anything forgotten.
            "checked;made 1|mounted|mounted;checked",
        ] {
            let error = account_error(lost);
            assert!(error.contains("missing: [1]"), "{lost}: {error}");
        }
    }

    fn account_error(lines: &str) -> String {
        account(lines).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn anything_else_is_a_fault() {
        for fault in ["wrong 3: a block", "left 1", "failed 2: no", "right", "made x", ""] {
            assert_eq!(account_error(fault), format!("the machine says: {fault}\r"));
        }
        let mut account = Account::default();
        account.take("[    0.1] EXT4-fs (vda): recovery complete").unwrap();
        assert!(account.take("EXT4-fs error (device vda)").is_err());
        assert!(account.take("thread 'main' panicked at x").is_err());
    }
}
