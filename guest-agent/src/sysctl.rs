//! Kernel parameters of the network: which of them are a network namespace's own.
//!
//! Containers run in the guest's network namespace, where every parameter below `net` can be written. Those that a namespace of its own
//! would not have are the kernel's, and a container must not change them.

use std::{fs, io, os::unix::fs::PermissionsExt, thread};

use nix::sched::{CloneFlags, unshare};

/// Where parameters are files (proc_sys(5)).
const ROOT: &str = "/proc/sys";
/// The first name of those of the network.
const NETWORK: &str = "net.";
/// Mode of a parameter that its owner can write.
const WRITABLE: u32 = 0o200;

/// The first of `names` that belongs to the kernel and to no network namespace.
///
/// # Errors
/// There is no new namespace to look in.
pub fn outside_namespaces<'a>(names: impl Iterator<Item = &'a String>) -> io::Result<Option<String>> {
    let names = names.filter(|name| name.starts_with(NETWORK)).cloned().collect::<Vec<_>>();
    if names.is_empty() {
        return Ok(None);
    }
    // The kernel shows the parameters of the reading thread's namespace; this thread ends with its namespace.
    let look = move || -> io::Result<Option<String>> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(names.into_iter().find(|name| !can_be_written(name)))
    };
    thread::Builder::new()
        .spawn(look)?
        .join()
        .unwrap_or(Err(io::ErrorKind::Other.into()))
}

fn can_be_written(name: &str) -> bool {
    let file = format!("{ROOT}/{}", name.replace('.', "/"));
    fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & WRITABLE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_a_namespace_pass() {
        // A new network namespace is root's to make.
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only_parameters_of_a_namespace_pass: this test needs root");
            return;
        }
        let first = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            outside_namespaces(names.iter()).unwrap()
        };
        assert_eq!(first(&["net.core.somaxconn", "net.ipv4.ip_unprivileged_port_start"]), None);
        for kernels in ["net.core.netdev_max_backlog", "net.core.dev_weight", "net.no.such"] {
            assert_eq!(first(&["net.core.somaxconn", kernels]).as_deref(), Some(kernels));
        }
        assert_eq!(first(&["kernel.shmmax"]), None, "not of the network");
        assert!(
            fs::metadata("/proc/sys/net/core/netdev_max_backlog").is_ok(),
            "this thread's namespace is what it was"
        );
    }
}
