//! `casemate host check`: what this host has and lacks, on one screen.

use crate::output::print;
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use host_check::{Area, Check, Facts, Outcome, checks, runs};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};

/// Subcommands for the host.
#[derive(Subcommand)]
pub enum Host {
    /// Say whether this host can run plain and SEV-SNP guests, and what is missing
    #[command(
        after_help = "Examples:\n  casemate host check\n  casemate host check --tee snp --json\n\nNothing is changed or loaded. The exit code is 1 if \
        something is missing that guests of the TEE need."
    )]
    Check(CheckArguments),
}

/// For which guests.
#[derive(Args)]
pub struct CheckArguments {
    /// Guests that the exit code is about
    #[arg(long, default_value = "plain")]
    tee: Tee,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tee {
    Plain,
    Snp,
}

/// Runs a subcommand. `Ok(false)`: something that is needed is missing.
pub fn run(command: Host) -> Result<bool> {
    let Host::Check(arguments) = command;
    let checks = checks(&Facts::read());
    let [plain, snp] = [Area::Plain, Area::Snp].map(|area| runs(area, &checks));
    if arguments.json {
        let report = json!({"plain": plain, "snp": snp, "checks": checks});
        print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&table(&checks, stdout().is_terminal()))?;
    }
    Ok(match arguments.tee {
        Tee::Plain => plain,
        Tee::Snp => snp,
    })
}

fn table(checks: &[Check], coloured: bool) -> String {
    let mut text = String::new();
    for (area, title) in [(Area::Plain, "every guest"), (Area::Snp, "SEV-SNP guests")] {
        let _ = writeln!(text, "{title}");
        for check in checks.iter().filter(|check| check.area == area) {
            let (word, colour, advice) = match &check.outcome {
                Outcome::Ok => ("ok", 32, None),
                Outcome::Missing(advice) => ("missing", 31, Some(advice)),
                Outcome::Optional(advice) => ("optional", 33, Some(advice)),
            };
            let word = format!("{word:<8}");
            let word = if coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
            let _ = writeln!(text, "  {word}  {:<17}  {}", check.name, check.found);
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:31}{advice}", "");
            }
        }
    }
    let verdict = |area| if runs(area, checks) { "yes" } else { "no" };
    let _ = write!(
        text,
        "plain guests: {}, SEV-SNP guests: {}",
        verdict(Area::Plain),
        verdict(Area::Snp)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(area: Area, outcome: Outcome) -> Check {
        Check {
            area,
            name: "KVM",
            found: "/dev/kvm".to_owned(),
            outcome,
        }
    }

    #[test]
    fn the_table_ends_with_a_verdict() {
        let checks = [
            check(Area::Plain, Outcome::Ok),
            check(Area::Snp, Outcome::Missing("load ccp".to_owned())),
        ];
        let text = table(&checks, false);
        assert_eq!(
            text,
            "every guest\n  ok        KVM                /dev/kvm\nSEV-SNP guests\n  missing   KVM                /dev/kvm\n\
             \x20                              load ccp\nplain guests: yes, SEV-SNP guests: no"
        );
        assert!(table(&checks, true).contains("\x1b[31mmissing \x1b[0m"));
    }
}
