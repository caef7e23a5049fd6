//! `casemate-converter`, a program that converts one layer without any privilege; a library so that tests can reach its parts.
#![forbid(unsafe_code)]

pub mod filter;
pub mod limits;
pub mod program;
