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
//! Descriptors 0 to 2 become those of the process, unless the spec asks for a terminal. This program has one thread
//! for as long as it lives: libcontainer clones without exec. It judges nothing.

mod container;
mod control;
mod descriptors;
mod device_filter;
mod external;
mod seccomp;

use std::{env, os::fd::OwnedFd, path::PathBuf, process::ExitCode};

use control::Control;
use oci_spec::runtime::Spec;

/// What a failed start tells the agent; the agent decides how much of it leaves the guest.
#[derive(Debug, thiserror::Error)]
enum LauncherError {
    #[error("the control socket: {0}")]
    Control(#[from] control::ControlError),
    #[error("the limits that every container gets: {0}")]
    Seccomp(#[from] seccomp::FilterError),
    #[error("{0}")]
    Container(#[from] container::ContainerError),
    #[error("{0}")]
    External(#[from] external::ExternalError),
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
    let spec: Spec = control.spec()?;
    // Before anything of the container exists: whatever it starts inherits this, whichever profile its spec has.
    seccomp::deny_host_channels()?;
    let started = match order.verb {
        Verb::Create => container::create(&order.id, &order.bundle, &spec)?,
        Verb::Exec => container::exec(&order.id, &order.bundle, spec)?,
        Verb::External => external::start(&spec)?,
    };
    Ok(started)
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
