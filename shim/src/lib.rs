//! The shim: translates containerd's Task API to calls of the agent in the guest, and boots and ends the VM.
//!
//! `bootstrap` starts and cleans up shim processes, `task` and `sandbox_service` answer containerd, `sandbox` owns the one VM. The policy
//! passes through here as bytes: nothing in this crate parses or evaluates it.
#![forbid(unsafe_code)]

pub mod bootstrap;
mod bundle;
mod cgroup;
mod config;
mod describe;
mod error;
mod events;
mod fragments;
pub mod layers;
mod logging;
mod options;
mod pod_files;
mod policy_text;
mod program;
mod sandbox;
mod sandbox_service;
mod spawn_lock;
mod stdio;
mod task;
mod timeline;
mod vm;
