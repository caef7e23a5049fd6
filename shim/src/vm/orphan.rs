//! A VMM that its shim could no longer record: killed between starting it and writing `state.json`.
//!
//! Nothing on disk names such a process, but the kernel knows whether anybody still holds the listening end of its
//! control socket: while somebody does, that is the VMM, and a request to stop waits in the socket until it is read.
//! `vm_spec::control::Client` would wait for its answer longer than containerd waits for `delete`.

use super::cgroup;
use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt},
        time::TimeVal,
    },
};
use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};
use vm_spec::control::Request;

/// Pause between looks at a socket whose holder is about to end.
const POLL: Duration = Duration::from_millis(20);
/// The threads of a stopped VMM have left its cgroups after this time.
const LEAVE: Duration = Duration::from_millis(500);

/// Ends the VMM of the sandbox in `dir`, if there is one, within `limit`, and removes the cgroups it was put into.
/// A VMM that is slower still finds the request and ends later.
pub fn end(dir: &Path, cgroups_path: &str, limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut asked = false;
    while let Some(connection) = holder(dir, limit) {
        if !asked {
            log::warn!("a VMM in {} was never recorded; it is told to stop", dir.display());
            asked = ask(&connection).is_ok();
        }
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(POLL);
    }
    cgroup::remove_within(&cgroup::leaves(cgroups_path), LEAVE);
}

/// A connection to whoever listens on the control socket; nothing on it takes longer than `limit`.
fn holder(dir: &Path, limit: Duration) -> Option<OwnedFd> {
    // By the directory's descriptor: a socket's path may be too long (unix(7)).
    let handle = File::open(dir).ok()?;
    let path = format!("/proc/self/fd/{}/control.sock", handle.as_raw_fd());
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let limit = TimeVal::new(i64::try_from(limit.as_secs()).ok()?.max(1), 0);
    setsockopt(&connection, sockopt::SendTimeout, &limit).ok()?;
    setsockopt(&connection, sockopt::ReceiveTimeout, &limit).ok()?;
    connect(connection.as_raw_fd(), &UnixAddr::new(path.as_str()).ok()?).ok()?;
    Some(connection)
}

fn ask(connection: &OwnedFd) -> Result<(), Errno> {
    let request = serde_json::to_vec(&Request::Stop).map_err(|_| Errno::EINVAL)?;
    send(connection.as_raw_fd(), &request, MsgFlags::MSG_NOSIGNAL)?;
    // Answer or end: either way it was read.
    let _ = recv(connection.as_raw_fd(), &mut [0; 64], MsgFlags::empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::StateDir;
    use super::*;
    use nix::sys::socket::accept;

    #[test]
    fn whoever_holds_the_socket_is_told_to_stop() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::create(root.path(), "ns", &"x".repeat(76)).unwrap();
        let listener = state.bind_control().unwrap();
        let vmm = std::thread::spawn(move || {
            let connection = accept(listener.as_raw_fd()).unwrap();
            let mut message = [0; 64];
            let length = recv(connection, &mut message, MsgFlags::empty()).unwrap();
            nix::unistd::close(connection).unwrap();
            serde_json::from_slice::<Request>(&message[..length]).unwrap()
        });
        let dir = StateDir::path(root.path(), "ns", &"x".repeat(76));
        end(&dir, "", Duration::from_secs(10));
        assert!(matches!(vmm.join().unwrap(), Request::Stop));
        // Nobody is there any more: nothing is waited for.
        let started = Instant::now();
        end(&dir, "", Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
        end(Path::new("/nowhere"), "", Duration::from_secs(60));
    }
}
