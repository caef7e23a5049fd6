//! What test programs print: how many tests passed, and which programs failed.

use crate::runner::summary::Counts;

/// Lines of a failed program that the summary repeats.
const LAST_LINES: usize = 12;

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
pub fn libtest_counts(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        rest.split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
        ..Counts::default()
    })
}

/// `35 passed, 0 failed`
pub fn conformance_counts(line: &str) -> Option<Counts> {
    let (passed, failed) = line.trim().split_once(" passed, ")?;
    Some(Counts {
        passed: passed.parse().ok()?,
        failed: failed.split(' ').next()?.parse().ok()?,
        ..Counts::default()
    })
}

/// The targets that cargo names in the end as failed, `-p CRATE --test NAME`, each with the last lines that its program wrote:
/// of a program without cargo's harness there is nothing else in the summary.
pub fn failed_targets<'a, 'l>(lines: &'l [&'a str]) -> Vec<(&'a str, &'l [&'a str])> {
    let begins = |line: &&str| line.trim_start().starts_with("Running ") || line.trim_start().starts_with("Doc-tests ");
    lines
        .iter()
        .filter_map(|line| {
            line.trim()
                .strip_prefix('`')?
                .strip_suffix('`')
                .filter(|target| target.starts_with("-p "))
        })
        .map(|target| {
            let program = target.split_once("--test ").map(|(_, name)| name);
            let start = program.and_then(|name| {
                lines.iter().position(|line| {
                    let mut words = line.split_whitespace().skip(1);
                    begins(line) && words.next().is_some_and(|file| file.starts_with(&format!("tests/{name}")))
                })
            });
            let section = start.map_or(&[][..], |start| {
                let after = &lines[start + 1..];
                &after[..after
                    .iter()
                    .position(|line| begins(line) || line.starts_with("error: "))
                    .unwrap_or(after.len())]
            });
            (target, &section[section.len().saturating_sub(LAST_LINES)..])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_both_kinds_of_lines() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.2s";
        assert_eq!(
            libtest_counts(line),
            Some(Counts {
                passed: 12,
                failed: 3,
                skipped: 1,
                ..Counts::default()
            })
        );
        assert_eq!(libtest_counts("test x ... ok"), None);
        assert_eq!(
            ["35 passed, 0 failed", "35 passed, 0 failed, 2 skipped"].map(conformance_counts),
            [Some(Counts {
                passed: 35,
                failed: 0,
                ..Counts::default()
            }); 2]
        );
        assert_eq!(conformance_counts("passed, failed"), None);
    }

    #[test]
    fn a_failed_program_is_named_with_its_last_words() {
        let log = "     Running tests/seccomp.rs (a)\nok: one\nerror: test failed, to rerun pass `-p casemate-vmm --test seccomp`\n     \
                   Running tests/snp.rs (b)\nok: two\nerror: 1 target failed:\n    `-p casemate-vmm --test seccomp`\n";
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(failed_targets(&lines), [("-p casemate-vmm --test seccomp", &["ok: one"][..])]);
        assert!(failed_targets(&lines[..5]).is_empty());
    }
}
