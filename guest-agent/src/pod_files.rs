//! Files of the pod that its containers share: hosts, hostname, resolv.conf, and `/dev/shm`.
//!
//! Policies know them below the sandbox's directory, where hcsshim has them. They are in the guest's memory, though, in a directory of the
//! agent's own: the scratch disk, which is mounted over the sandbox's directory, may be one that the host can write to.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sys::sysinfo::sysinfo,
};
use policy::{
    ContainerId, Permit,
    action::{Mount, PodFiles},
};

use crate::paths;

/// Name of the file or directory, and where containers see it.
const FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];
const SHM: (&str, &str) = ("shm", "/dev/shm");
/// Of the file system of the files: containers may write to them, and must not fill the agent's own.
const FILES_OPTIONS: &str = "mode=0755,size=512k,nr_inodes=16";
/// Type of the mounts, and the option that says so.
const BIND: &str = "bind";
const READ_ONLY: &str = "ro";

/// Why the pod has not got its files.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed")]
pub struct PodFilesError {
    step: &'static str,
    #[source]
    cause: io::Error,
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> PodFilesError {
    move |cause| PodFilesError { step, cause }
}

/// Which files a pod has.
#[derive(Clone, Debug, Default)]
pub struct Present(Vec<(&'static str, &'static str)>);

impl Present {
    /// Those of the sandbox's pod.
    pub fn of(sandbox: &ContainerId) -> Self {
        let exists = |(name, _): &(&str, &str)| Path::new(&paths::pod_file(sandbox, name)).exists();
        Self(FILES.into_iter().chain([SHM]).filter(exists).collect())
    }

    /// The mounts of a container that has `own` ones: none where it mounts something itself.
    pub fn mounts(&self, sandbox: &ContainerId, own: &[Mount], read_only_root: bool) -> Vec<Mount> {
        let taken = |destination: &str| own.iter().any(|mount| names(&mount.destination).eq(names(destination)));
        let free = self.0.iter().filter(|(_, destination)| !taken(destination));
        free.map(|file| bind(sandbox, *file, read_only_root && *file != SHM)).collect()
    }
}

/// Every mount that [`Present::mounts`] can give: what a policy has to allow by default.
pub fn default_mounts(sandbox: &ContainerId) -> Vec<Mount> {
    let of_files = FILES
        .into_iter()
        .flat_map(|file| [bind(sandbox, file, false), bind(sandbox, file, true)]);
    of_files.chain([bind(sandbox, SHM, false)]).collect()
}

/// Where the source of such a mount is; `None` for any other source.
pub fn place_of(sandbox: &ContainerId, source: &str) -> Option<String> {
    let named = |(name, _): &(&str, &str)| paths::pod_source(sandbox, name) == source;
    let (name, _) = FILES.into_iter().chain([SHM]).find(named)?;
    Some(paths::pod_file(sandbox, name))
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

fn bind(sandbox: &ContainerId, (name, destination): (&str, &str), read_only: bool) -> Mount {
    let options = [BIND, READ_ONLY].into_iter().take(1 + usize::from(read_only));
    Mount {
        source: paths::pod_source(sandbox, name),
        destination: destination.to_owned(),
        options: Some(options.map(str::to_owned).collect()),
        kind: BIND.to_owned(),
    }
}

/// Writes the files of the permit, and mounts the pod's `/dev/shm` unless it is there.
///
/// # Errors
/// Files before the failed one have their new contents, which were judged.
pub fn write(permit: Permit<'_, PodFiles>) -> Result<(), PodFilesError> {
    let action = permit.action();
    let place = |name: &str| paths::pod_file(&action.sandbox_id, name);
    let directory = paths::pod_files(&action.sandbox_id);
    if !Path::new(&directory).exists() {
        mount_in_memory(&directory, FILES_OPTIONS).map_err(failed("mounting the directory of the pod's files"))?;
    }
    for ((name, _), lines) in FILES.into_iter().zip([&action.hosts, &action.hostname, &action.resolv_conf]) {
        write_lines(&place(name), lines).map_err(failed("writing a file of the pod"))?;
    }
    let shm = place(SHM.0);
    if action.shm_bytes != 0 && !Path::new(&shm).exists() {
        let memory = sysinfo().map_err(|error| failed("reading the size of memory")(error.into()))?;
        let options = format!("mode=1777,size={}", action.shm_bytes.min(memory.ram_total() / 2));
        mount_in_memory(&shm, &options).map_err(failed("mounting the pod's /dev/shm"))?;
    }
    permit.commit();
    Ok(())
}

/// Replaces the contents within the same file, so that containers which have it mounted see them. A file without lines is not created,
/// but one that exists is emptied.
fn write_lines(path: &str, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() && !Path::new(path).exists() {
        return Ok(());
    }
    let text = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    // In this order a reader sees no empty file.
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// Makes a directory and mounts a tmpfs there.
fn mount_in_memory(path: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("pod"), path, Some("tmpfs"), flags, Some(options)).map_err(|error| {
        // Otherwise it would count as the pod's.
        let _ = fs::remove_dir(path);
        error.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn sandbox() -> ContainerId {
        ContainerId::new("s")
    }

    #[test]
    fn a_container_has_the_pods_files_where_it_mounts_nothing_itself() {
        let present = Present(vec![FILES[0], FILES[2], SHM]);
        let own = [Mount {
            destination: "//etc/resolv.conf/".to_owned(),
            ..bind(&sandbox(), FILES[2], false)
        }];
        let mounts = present.mounts(&sandbox(), &own, true);
        let shown: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.destination.as_str(), mount.options.clone().unwrap_or_default()))
            .collect();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(shown, [("/etc/hosts", words(&["bind", "ro"])), ("/dev/shm", words(&["bind"]))]);
        assert!(mounts[0].source.ends_with(&format!("/c/{}/hosts", sandbox().as_hex())));
        assert!(Present::default().mounts(&sandbox(), &[], false).is_empty());
    }

    #[test]
    fn policies_allow_by_default_what_is_added() {
        let defaults = default_mounts(&sandbox());
        let present = Present(FILES.into_iter().chain([SHM]).collect());
        for read_only in [false, true] {
            for mount in present.mounts(&sandbox(), &[], read_only) {
                assert!(defaults.contains(&mount), "{mount:?}");
                assert!(place_of(&sandbox(), &mount.source).is_some());
            }
        }
        assert_eq!(place_of(&sandbox(), &paths::sandbox_mounts(&sandbox())), None);
        assert_eq!(place_of(&ContainerId::new("other"), &defaults[0].source), None);
    }

    #[test]
    fn contents_are_replaced_in_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let path = path.to_str().unwrap();
        write_lines(path, &[]).unwrap();
        assert!(!Path::new(path).exists(), "the pod has no such file");
        write_lines(path, &["127.0.0.1 localhost".to_owned(), "10.0.0.2 web".to_owned()]).unwrap();
        let inode = fs::metadata(path).unwrap().ino();
        write_lines(path, &["::1 localhost".to_owned()]).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "::1 localhost\n");
        assert_eq!(fs::metadata(path).unwrap().ino(), inode);
    }
}
