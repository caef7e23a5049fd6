//! The harness: a test machine (L1) with a /dev/kvm that works, the stories told in it, the demo, and the images they use.
//!
//! Two programs share this library: `testbed` on the developer's machine ([`l1`], [`runner`], [`shell`]) and
//! `story` inside L1 ([`lab`], [`stories`], [`demo`]). Nothing of the product depends on it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod debian;
pub mod demo;
pub mod host;
pub mod images;
pub mod items;
pub mod job;
pub mod l1;
pub mod lab;
mod layer_tar;
pub mod oci;
pub mod runner;
pub mod shell;
pub mod stories;
pub mod suites;
pub mod summary;
