//! `casemate-converter --job-fd N`: converts the layer on standard input to the image on standard output; see
//! [`converter_protocol`].
#![forbid(unsafe_code)]

use casemate_converter::{filter::RULES, program};
use std::process::ExitCode;

fn main() -> ExitCode {
    program::run(std::env::args_os().skip(1), RULES)
}
