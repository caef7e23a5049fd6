//! `casemate-vmm`, a VMM that runs one VM per process; a library so that tests and fuzz targets can reach its interfaces.
#![deny(unsafe_code)]

pub mod builder;
pub mod certificates;
pub mod control;
pub mod conversions;
pub mod descriptors;
pub mod device_thread;
pub mod devices;
pub mod event_loop;
pub mod exit_code;
pub mod exit_reason;
pub mod guest;
pub mod jail;
pub mod kernel;
pub mod kvm;
pub mod memory;
mod pause;
pub mod private_memory;
pub mod program;
pub mod reports;
pub mod seccomp;
pub mod snp;
pub mod stats;
pub mod threads;
pub mod vcpu;
pub mod vm;
pub mod watchdog;
