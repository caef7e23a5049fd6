//! The job: what the converter needs to know besides blob and image.

use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// Longest job in bytes.
const JOB_MAX_BYTES: usize = 4096;

/// What a converter is told once it may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Inherited descriptor of the slot's file: its lock lasts as long as the converter.
    pub slot: RawFd,
    /// Process id of the shim, without which the converter ends.
    pub parent: u32,
    /// User and group to become; absent where the shim is not root.
    pub id: Option<u32>,
}

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The shim ended before it sent one.
    #[error("no job was sent")]
    None,
    /// Longer than any job.
    #[error("the job is longer than {JOB_MAX_BYTES} bytes")]
    Long,
    /// Not a job.
    #[error("the job is not valid")]
    Json(#[from] serde_json::Error),
    /// An id that no converter may have.
    #[error("a converter does not run as user {0}")]
    Privileged(u32),
}

impl Job {
    /// The most that a reader needs to read to see that a job is too long.
    pub const READ_BYTES: u64 = JOB_MAX_BYTES as u64 + 1;

    /// As the shim sends it.
    pub fn to_json(self) -> String {
        // Numbers only, which always have a text.
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// As the converter reads it.
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
        let job: Self = serde_json::from_slice(text)?;
        match job.id {
            Some(id) if id == 0 || id == u32::MAX => Err(JobError::Privileged(id)),
            _ => Ok(job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_was_sent() {
        for id in [None, Some(0x7800_0001)] {
            let job = Job { slot: 7, parent: 42, id };
            assert_eq!(Job::from_json(job.to_json().as_bytes()).unwrap(), job);
        }
        assert!(matches!(Job::from_json(b""), Err(JobError::None)));
        assert!(matches!(Job::from_json(&[b' '; 5000]), Err(JobError::Long)));
        assert!(matches!(Job::from_json(b"{}"), Err(JobError::Json(_))));
        let root = Job {
            slot: 7,
            parent: 42,
            id: Some(0),
        };
        assert!(matches!(Job::from_json(root.to_json().as_bytes()), Err(JobError::Privileged(0))));
    }
}
