//! The pod's files: lines of text, which the policy judges one by one.

use agent_protocol::{WritePodFilesRequest, limits::POD_FILE_BYTES};
use container_document::refuse;
use policy::action::PodFiles;

use super::{DecodeError, sandbox_id};

/// The files of a pod, as lines.
pub fn pod_files(request: WritePodFilesRequest) -> Result<PodFiles, DecodeError> {
    Ok(PodFiles {
        sandbox_id: sandbox_id(&request.sandbox_id)?,
        hosts: lines("hosts", request.hosts)?,
        hostname: lines("hostname", request.hostname)?,
        resolv_conf: lines("resolv_conf", request.resolv_conf)?,
        shm_bytes: request.shm_bytes,
    })
}

/// Readers of these files disagree on other control characters: one would see a line where the policy saw none.
fn lines(field: &'static str, content: Vec<u8>) -> Result<Vec<String>, DecodeError> {
    if content.len() > POD_FILE_BYTES {
        refuse(field, "it is too long")?;
    }
    let text = String::from_utf8(content).unwrap_or_else(|_| "\0".to_owned());
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        refuse(field, "it is not lines of text")?;
    }
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(content: &[u8]) -> Result<Vec<String>, DecodeError> {
        let request = WritePodFilesRequest {
            sandbox_id: "s".to_owned(),
            hosts: content.to_vec(),
            ..Default::default()
        };
        Ok(pod_files(request)?.hosts)
    }

    #[test]
    fn a_file_is_lines_of_text_within_its_limit() {
        assert_eq!(hosts(b"::1\tlocalhost\n\nx").unwrap(), ["::1\tlocalhost", "", "x"]);
        assert_eq!(hosts(b"").unwrap(), [""; 0]);
        assert!(hosts(&vec![b'a'; POD_FILE_BYTES]).is_ok());
        for bad in [
            b"a\rb".as_slice(),
            b"a\0",
            b"\xff",
            "a\u{85}b".as_bytes(),
            &vec![b'a'; POD_FILE_BYTES + 1],
        ] {
            assert!(hosts(bad).is_err());
        }
        assert!(pod_files(WritePodFilesRequest::new()).is_err(), "no sandbox");
    }
}
