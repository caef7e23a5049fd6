//! Whose listeners a port has: the containers of a pod share one network, and a policy lists the ports of each.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind},
};

/// State of a listening socket in `/proc/net/tcp` (`include/net/tcp_states.h`, `TCP_LISTEN`).
const LISTENING: &str = "0A";
/// Descriptors that are looked at; a container with more gets no port forwarded.
const DESCRIPTORS: usize = 1 << 16;

/// Whether there are listeners on `port`, and every one is a socket of a process in `pids`.
///
/// # Errors
/// The kernel's tables cannot be read, or the processes have too many descriptors.
pub fn are_only_of(port: u16, pids: &[i32]) -> io::Result<Owner> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match File::open(table) {
            // A container may have any number of sockets: no table is in memory as a whole.
            Ok(table) => {
                for line in BufReader::new(table).lines().skip(1) {
                    inodes.extend(listener_on(port, &line?));
                }
            }
            // A kernel without this family.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if inodes.is_empty() {
        return Ok(Owner::Nobody);
    }
    let own = sockets(pids)?;
    Ok(if inodes.iter().all(|inode| own.contains(inode)) {
        Owner::Container
    } else {
        Owner::Another
    })
}

/// Whose the listeners of a port are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There are none.
    Nobody,
    /// All are the container's.
    Container,
    /// At least one is not the container's.
    Another,
}

/// The inode of the listener in a line of `/proc/net/tcp` (proc_net(5)): number, local address, remote address, state, …, inode tenth.
fn listener_on(port: u16, line: &str) -> Option<u64> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, local_port) = fields.next()?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let is_it = state == LISTENING && u16::from_str_radix(local_port, 16) == Ok(port);
    is_it.then(|| inode.parse().ok()).flatten()
}

/// Inodes of the sockets that these processes have open.
fn sockets(pids: &[i32]) -> io::Result<HashSet<u64>> {
    let mut found = HashSet::new();
    let mut seen = 0;
    for pid in pids {
        // A process that has exited has none.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            seen += 1;
            if seen > DESCRIPTORS {
                return Err(ErrorKind::QuotaExceeded.into());
            }
            let link = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode: Option<u64> = link
                .to_str()
                .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            found.extend(inode);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        assert_eq!(listener_on(8080, line), Some(4711));
        assert_eq!(listener_on(8081, line), None);
        assert_eq!(listener_on(8080, &line.replace(" 0A ", " 01 ")), None, "a connection");
        for odd in ["", "0: x", "   0: 0100007F:1F90 00000000:0000 0A"] {
            assert_eq!(listener_on(8080, odd), None);
        }
    }

    #[test]
    fn a_port_has_an_owner() {
        let own = [std::process::id() as i32];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(are_only_of(port, &own).unwrap(), Owner::Container);
        assert_eq!(are_only_of(port, &[]).unwrap(), Owner::Another);
        drop(listener);
        assert_eq!(are_only_of(port, &own).unwrap(), Owner::Nobody);
    }
}
