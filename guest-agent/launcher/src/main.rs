//! Starts one container, one exec, or one process of the guest, from a request that the agent has judged.
//!
//! ```text
//! casemate-launcher CONTROL
//! ```
//! CONTROL is the number of an inherited stream socket, on which one request comes and one answer goes (`launcher-protocol`).
//! The launcher then stays until the agent closes its end, so that the new process has no other parent before the agent
//! knows its pid. Descriptors 0 to 2 become those of the process, unless the request asks for a terminal.
//!
//! The agent runs it from a sealed memory file, as a container may make it run inside (`/proc/self/exe` as a program) and open
//! it. Nothing that it starts in a container's namespaces has more than that container until its execve (`exec`, `worker`).
//! This program has one thread for as long as it lives: libcontainer clones without exec. It judges nothing.

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

/// What came of a request.
enum Outcome {
    /// The process exists, with this terminal.
    Started(u32, Option<OwnedFd>),
    /// Nothing runs.
    Failed(Cause),
    /// A process may run of which nothing is known. Only the agent can find and end it, as it becomes the agent's child once
    /// this program is gone; so there is no answer.
    Unknown,
}

fn main() -> ExitCode {
    // Descriptor 2 is the container's, a message there would be taken for its output.
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

/// Keeps containers out of this program's memory and descriptors, as far as the kernel does without their consent: no process
/// without CAP_SYS_PTRACE may look into it or what it forks, no core is dumped, and nothing that the agent may have left open
/// by mistake goes further.
fn hide(control: &UnixStream) -> io::Result<()> {
    descriptors::close_all_but(&[control.as_fd()])?;
    // Its own program is a memory file, whose name would be a number.
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
