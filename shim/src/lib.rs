//! The shim: translates containerd's Task API to calls of the agent in the guest, and owns the VM's life.
//!
//! `bootstrap` is how a shim process comes alive, `task` what containerd asks of it, `sandbox` the one VM it
//! owns. The policy passes through here as bytes: nothing in this crate can parse or judge one.
#![forbid(unsafe_code)]

pub mod bootstrap;
mod bundle;
mod config;
mod error;
mod events;
mod fragments;
mod layers;
mod logging;
mod phase;
mod policy_text;
mod sandbox;
mod stdio;
mod task;
mod vm;
