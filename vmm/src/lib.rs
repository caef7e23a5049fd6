//! The parts of `casemate-vmm`: a program that runs one VM; a library too, so that tests and fuzzers reach its edges.
#![deny(unsafe_code)]

pub mod builder;
pub mod control;
pub mod descriptors;
pub mod devices;
pub mod event_loop;
pub mod exit_code;
pub mod exit_reason;
pub mod jail;
pub mod kernel;
pub mod kvm;
pub mod memory;
pub mod program;
pub mod seccomp;
pub mod stats;
pub mod vcpu;
pub mod vm;
pub mod watchdog;
