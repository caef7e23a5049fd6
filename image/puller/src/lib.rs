//! `casemate-puller`, a program that pulls one image by its digest and converts its layers, with the network as its only privilege; a
//! library so that tests can reach its parts.
#![forbid(unsafe_code)]

mod feed;
pub mod filter;
mod limits;
mod program;
mod pull;

pub use program::run;
