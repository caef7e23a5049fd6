//! The test harness: a test machine (L1) with a /dev/kvm that works, the stories that run in it, the demo and the benchmarks.
//!
//! Two programs share this library: `testbed` on the developer's machine ([`testbed`], [`runner`]) and `story` inside L1
//! ([`lab`], [`stories`], [`demo`]). [`registry_demo`] runs on the developer's machine itself. [`hardware`] has stories that run on a host with SEV-SNP itself,
//! [`cache_resets`] a machine of its own for the layer cache. Nothing of the product depends on it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cache_resets;
pub mod demo;
pub mod hardware;
pub mod lab;
pub mod registry_demo;
pub mod runner;
pub mod stories;
pub mod testbed;
