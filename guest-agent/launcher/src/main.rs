//! Starts one container, one further process in it, or one process of the guest, from an OCI spec that the agent has judged.
//!
//! ```text
//! casemate-launcher create|exec|external ID BUNDLE CONTROL
//! ```
//! CONTROL is the number of an inherited stream socket. On it come a length (u32, little endian) and the spec as JSON;
//! back goes one byte, `P` followed by the pid (u32, little endian), with the terminal's master as SCM_RIGHTS if there
//! is one, or `E` followed by a message up to the end. The launcher then stays until the agent closes its end, so that
//! the new process has no other parent before the agent knows its pid.
//!
//! The agent runs it from a sealed memory file, as a container may make it run inside (`/proc/self/exe` as a program) and open
//! it. Nothing that it starts in a container's namespaces has more than that container until its execve (`exec`, `worker`).
//!
//! Descriptors 0 to 2 become those of the process, unless the spec asks for a terminal. This program has one thread
//! for as long as it lives: libcontainer clones without exec. It judges nothing.

mod cgroup;
mod container;
mod control;
mod descriptors;
mod device_filter;
mod exec;
mod external;
mod seccomp;
mod terminal;
mod worker;

use std::{
    env, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
};

use control::Control;
use nix::sys::prctl;
use oci_spec::runtime::Spec;

/// What a failed start tells the agent; the agent decides how much of it leaves the guest.
#[derive(Debug, thiserror::Error)]
enum LauncherError {
    #[error("the control socket: {0}")]
    Control(#[from] control::ControlError),
    #[error("closing to the containers: {0}")]
    Hide(io::Error),
    #[error("the limits that every container gets: {0}")]
    Seccomp(#[from] seccomp::FilterError),
    #[error("{0}")]
    Container(#[from] container::ContainerError),
    #[error("{0}")]
    Exec(#[from] exec::ExecError),
    #[error("{0}")]
    External(#[from] external::ExternalError),
}

impl LauncherError {
    /// Whether a process may run all the same, of which nothing is known.
    fn is_uncertain(&self) -> bool {
        matches!(
            self,
            Self::Exec(exec::ExecError::Worker(worker::WorkerError::Silent | worker::WorkerError::Stranger))
        )
    }
}

/// What to start.
struct Order {
    verb: Verb,
    id: String,
    bundle: PathBuf,
}

enum Verb {
    Create,
    Exec,
    External,
}

fn main() -> ExitCode {
    // Descriptor 2 is the container's, a message there would be taken for its output.
    std::panic::set_hook(Box::new(|_| {}));
    let Some((order, descriptor)) = order(env::args().skip(1)) else {
        eprintln!("usage: casemate-launcher create|exec|external ID BUNDLE CONTROL");
        return ExitCode::from(2);
    };
    let mut control = match descriptors::inherited_socket(descriptor) {
        Ok(socket) => Control::new(socket),
        Err(_) => return ExitCode::from(2),
    };
    let sent = match start(&order, &mut control) {
        Ok((pid, terminal)) => control.started(pid, terminal.as_ref()),
        // Only the agent can find and end what may have been started: as soon as this program is gone, it is its child.
        Err(error) if error.is_uncertain() => return ExitCode::FAILURE,
        Err(error) => control.failed(&error.to_string()),
    };
    match sent {
        Ok(()) => {
            control.wait_for_close();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn order(mut args: impl Iterator<Item = String>) -> Option<(Order, i32)> {
    let verb = match args.next()?.as_str() {
        "create" => Verb::Create,
        "exec" => Verb::Exec,
        "external" => Verb::External,
        _ => return None,
    };
    let order = Order {
        verb,
        id: args.next()?,
        bundle: args.next()?.into(),
    };
    let descriptor = args.next()?.parse().ok()?;
    args.next().is_none().then_some((order, descriptor))
}

fn start(order: &Order, control: &mut Control) -> Result<(u32, Option<OwnedFd>), LauncherError> {
    hide(control).map_err(LauncherError::Hide)?;
    let spec: Spec = control.spec()?;
    // Before anything of the container exists: whatever it starts inherits this, whichever profile its spec has.
    seccomp::deny_host_channels()?;
    let started = match order.verb {
        Verb::Create => container::create(&order.id, &order.bundle, &spec)?,
        Verb::Exec => exec::exec(&spec)?,
        Verb::External => external::start(&spec)?,
    };
    Ok(started)
}

/// Keeps containers out of this program's memory and descriptors, as far as the kernel does without their consent: no process
/// without CAP_SYS_PTRACE may look into it or what it forks, no core is dumped, and nothing that the agent may have left open
/// by mistake goes further.
fn hide(control: &Control) -> io::Result<()> {
    descriptors::close_all_but(&[control.as_fd()])?;
    // Its own program is a memory file, whose name would be a number.
    prctl::set_name(c"casemate-launch")?;
    Ok(prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<(Order, i32)> {
        order(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn an_order_has_four_words() {
        let (order, descriptor) = parse("create abc /run/b 7").unwrap();
        assert!(matches!(order.verb, Verb::Create));
        assert_eq!((order.id.as_str(), order.bundle.to_str(), descriptor), ("abc", Some("/run/b"), 7));
        for bad in [
            "",
            "create",
            "create abc",
            "create abc /b",
            "delete abc /b 7",
            "exec abc /b x",
            "exec abc /b 7 8",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
