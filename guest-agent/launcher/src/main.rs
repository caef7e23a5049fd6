//! Starts one container, one exec, or one process of the guest, from a request that the agent has judged.
//!
//! ```text
//! casemate-launcher CONTROL
//! ```
//! CONTROL is the number of an inherited stream socket for one request and one answer (`launcher-protocol`).
//! The launcher then waits until the agent closes its end, so that the new process is not reparented before the agent
//! knows its pid. Descriptors 0 to 2 become those of the process, unless the request asks for a terminal.
//!
//! The agent executes it from a sealed memory file, because a container may make it run inside (`/proc/self/exe` as a program) and open
//! it. Until its execve, nothing that it starts in a container's namespaces has more privileges than that container (`exec`, `worker`).
//! This program has one thread throughout: libcontainer clones without exec. It judges nothing.

#![deny(unsafe_code)]

mod cgroup;
mod create;
mod descriptors;
mod device_filter;
mod exec;
mod external;
mod filter;
mod oci;
mod program;
mod sysctl;
mod terminal;
mod worker;

use std::{
    env,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use launcher_protocol::{Answer, Cause, FrameError, Request, receive, send};
use nix::sys::prctl;

/// The result of a request.
enum Outcome {
    /// The process exists, with this terminal.
    Started(u32, Option<OwnedFd>),
    /// No process is left running.
    Failed(Cause),
    /// A process may run of which nothing is known. Only the agent can find and kill it, because it becomes the agent's child once
    /// this program exits; so no answer is sent.
    Unknown,
}

fn main() -> ExitCode {
    // Descriptor 2 is the container's: a message there would look like its output.
    std::panic::set_hook(Box::new(|_| {}));
    let mut arguments = env::args().skip(1);
    let (Some(number), None) = (arguments.next().and_then(|word| word.parse().ok()), arguments.next()) else {
        eprintln!("usage: casemate-launcher CONTROL");
        return ExitCode::from(2);
    };
    let Ok(control) = descriptors::inherited_socket(number) else {
        return ExitCode::from(2);
    };
    match serve(&control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reads the request, starts its process, answers, and waits for the agent to close the socket.
fn serve(mut control: &UnixStream) -> Result<(), FrameError> {
    hide(control)?;
    let (request, _) = receive(control)?;
    match start(&request) {
        Outcome::Started(pid, terminal) => send(control, &Answer::Started(pid), terminal.as_ref().map(AsFd::as_fd))?,
        Outcome::Failed(cause) => send(control, &Answer::Failed(cause), None)?,
        Outcome::Unknown => return Err(FrameError::Closed),
    }
    let _ = control.read(&mut [0]);
    Ok(())
}

/// Protects this program's memory and descriptors from containers, as far as the kernel does without their consent: no process
/// without CAP_SYS_PTRACE may access it or its children, no core is dumped, and descriptors that the agent may have left open
/// by mistake are not inherited.
fn hide(control: &UnixStream) -> io::Result<()> {
    descriptors::close_all_but(&[control.as_fd()])?;
    // Its program is a memory file, so its name would be a number.
    prctl::set_name(c"casemate-launch")?;
    Ok(prctl::set_dumpable(false)?)
}

fn start(request: &Request) -> Outcome {
    // Before anything of the container exists: whatever it starts inherits this, whichever profile the request has.
    if filter::deny_host_channels().is_err() {
        return Outcome::Failed(Cause::Other);
    }
    let result = match request {
        Request::Create(container) => create::create(container),
        Request::Exec(exec) => exec::exec(exec),
        Request::External(process) => external::start(process),
    };
    result.unwrap_or_else(Outcome::Failed)
}
