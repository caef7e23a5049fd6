//! The pod's hosts, hostname, resolv.conf and the size of its `/dev/shm`, read where CRI keeps them on the host.

use crate::bundle::{FileSources, ShmSize};
use agent_protocol::{WritePodFilesRequest, limits::POD_FILE_BYTES};
use nix::sys::statvfs::statvfs;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Why a file of the pod cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PodFileError {
    /// It cannot be opened or read.
    #[error("cannot read {}, a file of the pod", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is too long for the guest.
    #[error("{}, a file of the pod, is longer than {POD_FILE_BYTES} bytes", .0.display())]
    Long(PathBuf),
}

/// What the guest gets: `new`, and of `known` what the new request lacks.
pub fn merged(known: &WritePodFilesRequest, new: WritePodFilesRequest, sandbox: &str) -> WritePodFilesRequest {
    let file = |new: Vec<u8>, known: &[u8]| if new.is_empty() { known.to_vec() } else { new };
    WritePodFilesRequest {
        sandbox_id: sandbox.to_owned(),
        hosts: file(new.hosts, &known.hosts),
        hostname: file(new.hostname, &known.hostname),
        resolv_conf: file(new.resolv_conf, &known.resolv_conf),
        // A pod's shared memory keeps its size.
        shm_bytes: if known.shm_bytes == 0 { new.shm_bytes } else { known.shm_bytes },
        ..Default::default()
    }
}

/// Reads what `sources` names.
///
/// # Errors
/// When a file cannot be read, or is too long.
pub fn read(sources: &FileSources) -> Result<WritePodFilesRequest, PodFileError> {
    Ok(WritePodFilesRequest {
        hosts: content(sources.hosts.as_deref())?,
        hostname: content(sources.hostname.as_deref())?,
        resolv_conf: content(sources.resolv_conf.as_deref())?,
        shm_bytes: size(sources.shm.as_ref())?,
        ..Default::default()
    })
}

fn content(path: Option<&Path>) -> Result<Vec<u8>, PodFileError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let mut content = Vec::new();
    let file = File::open(path).and_then(|file| file.take(POD_FILE_BYTES as u64 + 1).read_to_end(&mut content));
    match file {
        Ok(bytes) if bytes > POD_FILE_BYTES => Err(PodFileError::Long(path.into())),
        Ok(_) => Ok(content),
        Err(error) => Err(PodFileError::Read(path.into(), error)),
    }
}

/// In bytes; 0 where there is none.
fn size(shm: Option<&ShmSize>) -> Result<u64, PodFileError> {
    let path = match shm {
        None => return Ok(0),
        Some(ShmSize::Bytes(bytes)) => return Ok(*bytes),
        Some(ShmSize::Of(path)) => path,
    };
    let fs = statvfs(path).map_err(|e| PodFileError::Read(path.into(), e.into()))?;
    Ok(fs.blocks().saturating_mul(fs.fragment_size()))
}

/// Addresses of `nameserver` lines (resolv.conf(5)).
pub fn name_servers(resolv_conf: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<std::net::IpAddr>().ok().map(|address| address.to_string())
    };
    resolv_conf.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_container_replaces_what_it_brings_and_nothing_else() {
        let known = WritePodFilesRequest {
            hosts: b"a".to_vec(),
            resolv_conf: b"r".to_vec(),
            shm_bytes: 7,
            ..Default::default()
        };
        let new = WritePodFilesRequest {
            hosts: b"b".to_vec(),
            shm_bytes: 9,
            ..Default::default()
        };
        let both = merged(&known, new, "pod");
        assert_eq!((&both.hosts[..], &both.resolv_conf[..], both.shm_bytes), (&b"b"[..], &b"r"[..], 7));
        assert_eq!(both.sandbox_id, "pod");
    }

    #[test]
    fn a_file_is_read_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, vec![b'x'; POD_FILE_BYTES]).unwrap();
        assert_eq!(content(Some(&path)).unwrap().len(), POD_FILE_BYTES);
        std::fs::write(&path, vec![b'x'; POD_FILE_BYTES + 1]).unwrap();
        assert!(matches!(content(Some(&path)), Err(PodFileError::Long(_))));
        assert!(matches!(content(Some(&dir.path().join("none"))), Err(PodFileError::Read(..))));
        assert!(size(Some(&ShmSize::Of(dir.path().into()))).unwrap() > 0);
        assert_eq!(size(Some(&ShmSize::Bytes(7))).unwrap(), 7);
    }

    #[test]
    fn name_servers_are_addresses() {
        let text = "search a.b\nnameserver 10.0.0.10\n nameserver\tfd00::a\nnameserver dns\n#nameserver 1.1.1.1\nnameserver";
        assert_eq!(name_servers(text), ["10.0.0.10", "fd00::a"]);
    }
}
