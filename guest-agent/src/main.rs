//! PID 1 of the guest: decodes the host's request, asks the policy, acts on its permit.
//!
//! ```text
//! vsock 1024 ─► server ─► decode ─► policy::Enforcer ─► storage | container      vsock 1025 ─► streams ─► stdio
//!                │                                          │                                     ▲
//!              gate: closed until the text's digest         └─► launcher (its own process) ───────┘
//!              equals host data (evidence)                         reaper: every exit passes here
//! ```
//! Every method takes three steps: decode the host's bytes into an action, have it enforced, act on the permit. No
//! protobuf type is used beyond `decode`, and nothing acts without a permit. Logs leave the trust boundary, so
//! they contain only ids, rule names and digests.

#![deny(unsafe_code)]

mod admission;
mod cgroup;
mod container;
mod decode;
mod diagnostics;
mod error;
mod evidence;
mod fragments;
mod gate;
mod guest_dir;
#[cfg(test)]
mod hostile_traffic;
mod images;
mod init;
mod judge;
mod launcher;
mod log;
mod network;
mod paths;
mod pod_files;
mod reaper;
mod report_socket;
mod sandbox;
mod security_context;
mod server;
mod stacks;
mod stdio;
mod storage;
mod streams;
mod sys;
mod sysctl;

use std::{
    env,
    process::{self, ExitCode},
};

fn main() -> ExitCode {
    if process::id() != 1 {
        // As an init it would mount over this machine's file systems and power it off.
        return diagnostics::run(&env::args().skip(1).collect::<Vec<_>>());
    }
    // The host reads the console: a panic is reported by its place in the code, without its data.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => log::line(format_args!("panicked at {place}")),
        None => log::line("panicked"),
    }));
    let program = match init::prepare_guest() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("agent: {}", error::chain(&error));
            return init::power_off();
        }
    };
    // From here on there are two processes: this call returns in the one that serves, before any thread exists.
    match init::split() {
        Ok(init::Role::Server) => {}
        Ok(init::Role::Init { server }) => return init::reap_until_exit(server),
        Err(error) => {
            eprintln!("agent: {}", error::chain(&error));
            return init::power_off();
        }
    }
    match server::run(program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}
