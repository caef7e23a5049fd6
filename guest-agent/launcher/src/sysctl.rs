//! Kernel parameters of the network, which a container has with the whole guest.
//!
//! libcontainer refuses a document with a parameter below `net` and without a network namespace: it takes the namespace for its
//! host's. Here it is the pod's, which is the guest's, in which the launcher is itself. The agent has judged the parameters, and
//! refuses those that no network namespace would have of its own.

use std::{fs, io, path::Path};

/// Where parameters are files (proc_sys(5)).
pub const ROOT: &str = "/proc/sys";
/// The first name of those of the network.
const NETWORK: &str = "net.";

/// Whether a parameter is the network's.
pub fn is_of_network(name: &str) -> bool {
    name.starts_with(NETWORK)
}

/// Writes those parameters that are the network's, below `root`.
///
/// # Errors
/// There is no such parameter, or the kernel rejects its value.
pub fn write<'a>(root: &Path, parameters: impl IntoIterator<Item = (&'a String, &'a String)>) -> io::Result<()> {
    for (name, value) in parameters {
        if is_of_network(name) {
            // Not a parameter that does not exist: the kernel's own files are there.
            fs::OpenOptions::new()
                .write(true)
                .open(root.join(name.replace('.', "/")))
                .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn only_parameters_of_the_network_that_exist_are_written() {
        let root = std::env::temp_dir().join(format!("casemate-sysctl-{}", std::process::id()));
        fs::create_dir_all(root.join("net/core")).unwrap();
        fs::create_dir_all(root.join("kernel")).unwrap();
        for file in ["net/core/somaxconn", "kernel/sem"] {
            fs::write(root.join(file), "").unwrap();
        }
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
        let set = |name: &str| write(&root, &BTreeMap::from([(name.to_owned(), "9".to_owned())]));
        set("net.core.somaxconn").unwrap();
        set("kernel.sem").unwrap();
        assert_eq!((read("net/core/somaxconn").as_str(), read("kernel/sem").as_str()), ("9", ""));
        assert!(set("net.core.nothing").is_err() && !root.join("net/core/nothing").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
