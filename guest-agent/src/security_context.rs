//! The security context directory of a container: its policy and reference values, written into its root file system.
//!
//! Nothing in it is secret, and only the policy is proven: the reader must verify the signatures.

use std::io;

use policy::{SECURITY_CONTEXT_PREFIX, SECURITY_CONTEXT_VARIABLE, SecurityContextFiles};
use policy_fragment::MediaType;

use crate::{decode::PolicyOrder, guest_dir::Directory, sys};

/// Random bytes in the directory's name.
const NAME_BYTES: usize = 8;
/// Mode of the directory.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of a file in it, before the agent's umask.
const FILE_MODE: u32 = 0o777;

/// Content of the directory for every later container.
#[derive(Debug, Default)]
pub struct SecurityContext {
    policy: String,
    reference: String,
    transparent_reference: String,
    tcb_reference: Vec<u8>,
    platform_reference: Vec<u8>,
}

impl SecurityContext {
    /// For a guest whose policy is in force.
    pub fn of(order: PolicyOrder) -> Self {
        Self {
            // The gate accepts only UTF-8.
            policy: String::from_utf8(order.text).unwrap_or_default(),
            reference: order.reference,
            transparent_reference: order.transparent_reference,
            ..Self::default()
        }
    }

    /// Adds signed reference values; the last of each kind is used.
    pub fn refer(&mut self, kind: MediaType, message: Vec<u8>) {
        match kind {
            MediaType::TcbReference => self.tcb_reference = message,
            MediaType::PlatformReference => self.platform_reference = message,
            MediaType::Fragment | MediaType::TrustList => {}
        }
    }

    /// Writes the directory at the top of `rootfs`, completely or not at all; `None` if there is nothing to write.
    ///
    /// # Errors
    /// The file system is full, or `rootfs` is not a real directory.
    pub fn write(&self, rootfs: &str, host_certificate: &str) -> io::Result<Option<Written>> {
        let files = SecurityContextFiles {
            policy: &self.policy,
            reference: &self.reference,
            transparent_reference: &self.transparent_reference,
            tcb_reference: &self.tcb_reference,
            platform_reference: &self.platform_reference,
            host_certificate,
        }
        .named();
        if files.is_empty() {
            return Ok(None);
        }
        let mut random = [0; NAME_BYTES];
        sys::random(&mut random)?;
        let root = Directory::open(rootfs)?;
        let name = format!("{SECURITY_CONTEXT_PREFIX}{}", hex::encode(random));
        let directory = root.make_new(&name, DIRECTORY_MODE)?;
        let written = Written { root, directory, name };
        for (name, content) in files {
            if let Err(error) = written.directory.write_new(name, content.as_bytes(), FILE_MODE) {
                // The first error is reported. What is left is removed with the container's directory.
                let _ = written.remove();
                return Err(error);
            }
        }
        Ok(Some(written))
    }
}

/// A directory that was written.
pub struct Written {
    root: Directory,
    directory: Directory,
    name: String,
}

impl Written {
    /// The environment variable with the directory's path.
    pub fn variable(&self) -> String {
        format!("{SECURITY_CONTEXT_VARIABLE}=/{}", self.name)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        self.root.remove_all(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn rootfs() -> (tempfile::TempDir, String) {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().canonicalize().unwrap().to_str().unwrap().to_owned();
        (base, path)
    }

    #[test]
    fn a_container_finds_its_policy_and_the_last_reference_values() {
        let (_kept, rootfs) = rootfs();
        let mut context = SecurityContext::of("package policy\n".into());
        context.refer(MediaType::TcbReference, b"old".to_vec());
        context.refer(MediaType::TcbReference, b"x".to_vec());
        let written = context.write(&rootfs, "Y2VydA==").unwrap().unwrap();
        let variable = written.variable();
        let path = variable.strip_prefix("UVM_SECURITY_CONTEXT_DIR=/").unwrap();
        assert!(path.starts_with("security-context-"));
        let directory = format!("{rootfs}/{path}");
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o755);
        let read = |name: &str| fs::read_to_string(format!("{directory}/{name}")).unwrap();
        assert_eq!(read("security-policy-base64"), "cGFja2FnZSBwb2xpY3kK");
        assert_eq!(read("tcb-reference-info-base64"), "eA==");
        assert_eq!(read("host-amd-cert-base64"), "Y2VydA==");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 3, "no file without content");
        written.remove().unwrap();
        assert_eq!(fs::read_dir(&rootfs).unwrap().count(), 0);
    }

    #[test]
    fn without_content_there_is_no_directory() {
        let (_kept, rootfs) = rootfs();
        assert!(SecurityContext::default().write(&rootfs, "").unwrap().is_none());
        assert_eq!(fs::read_dir(&rootfs).unwrap().count(), 0);
        assert!(SecurityContext::of("x".into()).write("/nowhere/at/all", "").is_err());
    }
}
