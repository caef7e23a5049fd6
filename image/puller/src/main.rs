//! `casemate-puller`: pulls the image that the job on standard input names; see [`puller_protocol`].
#![forbid(unsafe_code)]

use casemate_puller::{filter::RULES, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(std::env::args_os().skip(1), RULES)
}
