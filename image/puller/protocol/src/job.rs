//! The job: what is to be pulled, where it goes, and what is there already.

use oci::Digest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr, os::fd::RawFd};

/// Longest job in bytes: an image's name, a number for each file, and two digests for each layer that is there.
const JOB_MAX_BYTES: usize = 512 << 10;
/// Most layers of an image: the limit of one overlay mount in the guest. There are as many files.
pub const LAYERS_MAX: usize = 128;
/// Most layers that are there already: as many as a guest mounts.
const KNOWN_MAX: usize = 1024;
/// Most name servers: the resolver of the C library uses three (resolv.conf(5)).
pub const NAMESERVERS_MAX: usize = 3;

/// A layer as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// SHA-256 of the compressed blob.
    pub digest: Digest,
    /// SHA-256 of the tar in it.
    pub diff_id: Digest,
}

/// What a puller is told once it may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// `REGISTRY/REPOSITORY@sha256:…`.
    pub image: String,
    /// Process id of the agent, without which the puller ends.
    pub parent: u32,
    /// User and group to become; absent where the agent is not root.
    pub id: Option<u32>,
    /// Inherited descriptors of empty files, one for each layer that an image may have.
    pub files: Vec<RawFd>,
    /// Inherited descriptor of the disk with the operator's configuration of registries, if the guest has one.
    pub configuration: Option<RawFd>,
    /// Layers that need not be pulled.
    pub known: BTreeSet<Blob>,
    /// Room for layers in bytes.
    pub free_bytes: u64,
    /// Whom to ask for addresses of registries.
    pub nameservers: Vec<IpAddr>,
    /// For how many seconds a registry that is not there is asked again.
    pub wait_seconds: u32,
}

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The agent ended before it sent one.
    #[error("no job was sent")]
    None,
    /// Longer than any job.
    #[error("the job is longer than {JOB_MAX_BYTES} bytes")]
    Long,
    /// Not a job.
    #[error("the job is not valid")]
    Json(#[from] serde_json::Error),
    /// A list with too many entries.
    #[error("the job has too many {0}")]
    TooMany(&'static str),
    /// A digest that is none.
    #[error("a layer of the job has no digest")]
    Digest(#[from] oci::DigestError),
    /// An id that no puller may have.
    #[error("a puller does not run as user {0}")]
    Privileged(u32),
}

/// The line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: String,
    parent: u32,
    id: Option<u32>,
    files: Vec<RawFd>,
    configuration: Option<RawFd>,
    /// Digest and diff id.
    known: Vec<(String, String)>,
    free_bytes: u64,
    nameservers: Vec<IpAddr>,
    wait_seconds: u32,
}

impl Job {
    /// The most that a reader needs to read to see that a job is too long.
    pub const READ_BYTES: u64 = JOB_MAX_BYTES as u64 + 1;

    /// As the agent sends it.
    pub fn to_json(&self) -> String {
        let known = self.known.iter();
        let line = Line {
            image: self.image.clone(),
            parent: self.parent,
            id: self.id,
            files: self.files.clone(),
            configuration: self.configuration,
            known: known.map(|blob| (blob.digest.to_string(), blob.diff_id.to_string())).collect(),
            free_bytes: self.free_bytes,
            nameservers: self.nameservers.clone(),
            wait_seconds: self.wait_seconds,
        };
        // Numbers and texts only, which always have a text.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// As the puller reads it.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn from_json(text: &[u8]) -> Result<Self, JobError> {
        if text.is_empty() {
            return Err(JobError::None);
        }
        if text.len() > JOB_MAX_BYTES {
            return Err(JobError::Long);
        }
        let line: Line = serde_json::from_slice(text)?;
        for (what, count, most) in [
            ("files", line.files.len(), LAYERS_MAX),
            ("known layers", line.known.len(), KNOWN_MAX),
            ("name servers", line.nameservers.len(), NAMESERVERS_MAX),
        ] {
            if count > most {
                return Err(JobError::TooMany(what));
            }
        }
        if let Some(id @ (0 | u32::MAX)) = line.id {
            return Err(JobError::Privileged(id));
        }
        let known = line.known.iter().map(|(digest, diff_id)| {
            Ok(Blob {
                digest: digest.parse()?,
                diff_id: diff_id.parse()?,
            })
        });
        Ok(Self {
            known: known.collect::<Result<_, JobError>>()?,
            image: line.image,
            parent: line.parent,
            id: line.id,
            files: line.files,
            configuration: line.configuration,
            free_bytes: line.free_bytes,
            nameservers: line.nameservers,
            wait_seconds: line.wait_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        let known = (0..KNOWN_MAX as u32).map(|number| Blob {
            digest: Digest::of(&number.to_le_bytes()),
            diff_id: Digest::of(b"tar"),
        });
        Job {
            image: format!("r.corp/{}@{}", "a".repeat(240), Digest::of(b"image")),
            parent: 42,
            id: Some(0x7800_0001),
            files: (3..3 + LAYERS_MAX as RawFd).collect(),
            configuration: Some(200),
            known: known.collect(),
            free_bytes: u64::MAX,
            nameservers: vec!["10.0.0.53".parse().unwrap(), "fe80::1".parse().unwrap()],
            wait_seconds: 30,
        }
    }

    #[test]
    fn the_largest_job_is_read_as_it_was_sent() {
        for job in [
            job(),
            Job {
                id: None,
                configuration: None,
                ..job()
            },
        ] {
            assert_eq!(Job::from_json(job.to_json().as_bytes()).unwrap(), job);
        }
    }

    #[test]
    fn anything_else_is_no_job() {
        assert!(matches!(Job::from_json(b""), Err(JobError::None)));
        assert!(matches!(Job::from_json(&vec![b' '; JOB_MAX_BYTES + 1]), Err(JobError::Long)));
        assert!(matches!(Job::from_json(b"{}"), Err(JobError::Json(_))));
        let read = |job: Job| Job::from_json(job.to_json().as_bytes());
        for id in [0, u32::MAX] {
            assert!(matches!(read(Job { id: Some(id), ..job() }), Err(JobError::Privileged(_))));
        }
        let files = vec![3; LAYERS_MAX + 1];
        assert!(matches!(read(Job { files, ..job() }), Err(JobError::TooMany("files"))));
        let nameservers = vec!["10.0.0.1".parse().unwrap(); 4];
        assert!(matches!(read(Job { nameservers, ..job() }), Err(JobError::TooMany("name servers"))));
        let bad = job().to_json().replacen("sha256:", "sha512:", 2);
        assert!(matches!(Job::from_json(bad.as_bytes()), Err(JobError::Digest(_))));
    }
}
