//! `manifest.json` of a guest image: one type for the builder that writes it and the shim that reads it.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file's name in the image's directory.
pub const FILE_NAME: &str = "manifest.json";
/// The version that this crate writes and reads.
pub const VERSION: u32 = 1;

/// The content of `manifest.json`: the files of a guest image, and the inputs it was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The ELF kernel.
    pub kernel: Artifact,
    /// The initramfs.
    pub initrd: Artifact,
    /// stage0's program: flat, for a fixed address, entered at its first byte. Absent in an image that is only booted without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage0: Option<Artifact>,
    /// Kernel command line.
    pub cmdline: String,
    /// MEASUREMENT of SEV-SNP reports of a guest of this image, by its number of vCPUs. Empty without stage0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub launch_digests: BTreeMap<u8, LaunchDigest>,
    /// Inputs of kernel and initramfs; verifiers need them, a boot does not.
    pub inputs: Vec<Input>,
    /// First line of the C compiler's `--version`, or the kernel package's name.
    pub compiler: String,
}

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Name in the image's directory.
    pub file: String,
    /// SHA-256, lower-case hex in JSON.
    #[serde(with = "hex::serde")]
    pub sha256: [u8; 32],
    /// Length in bytes.
    pub bytes: u64,
}

/// What SEV-SNP firmware measures of a launch: a SHA-384, lower-case hex in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchDigest(#[serde(with = "hex::serde")] pub [u8; 48]);

/// An input of the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// A program, a source package, or a configuration.
    pub name: String,
    /// SHA-256, lower-case hex in JSON.
    #[serde(with = "hex::serde")]
    pub sha256: [u8; 32],
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field is missing.
    #[error("not the manifest of a guest image")]
    Json(#[from] serde_json::Error),
    /// Not [`VERSION`].
    #[error("the manifest has version {0}, not {VERSION}")]
    Version(u32),
}

impl Manifest {
    /// The JSON text, with a final newline. Equal manifests give equal bytes.
    ///
    /// # Errors
    /// [`ManifestError::Json`] if `serde_json` fails, which it does not on these types.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Parses JSON. Fields that this version does not know are ignored.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn from_json(text: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(text)?;
        match manifest.version {
            VERSION => Ok(manifest),
            other => Err(ManifestError::Version(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "version": 1,
  "kernel": {
    "file": "vmlinux",
    "sha256": "abababababababababababababababababababababababababababababababab",
    "bytes": 7
  },
  "initrd": {
    "file": "initramfs.cpio",
    "sha256": "0101010101010101010101010101010101010101010101010101010101010101",
    "bytes": 8
  },
  "cmdline": "quiet",
  "inputs": [
    {
      "name": "guest.fragment",
      "sha256": "0202020202020202020202020202020202020202020202020202020202020202"
    }
  ],
  "compiler": "gcc 12"
}
"#;

    #[test]
    fn the_text_is_read_and_written_byte_for_byte() {
        let manifest = Manifest::from_json(TEXT.as_bytes()).unwrap();
        assert_eq!((manifest.kernel.sha256, manifest.initrd.bytes), ([0xab; 32], 8));
        assert_eq!(String::from_utf8(manifest.to_json().unwrap()).unwrap(), TEXT);
    }

    #[test]
    fn stage0_and_launch_digests_are_there_or_not() {
        let digest = "cd".repeat(48);
        let with = TEXT.replace(
            "  \"cmdline\": \"quiet\",\n",
            &format!(
                r#"  "stage0": {{
    "file": "stage0",
    "sha256": "{}",
    "bytes": 9
  }},
  "cmdline": "quiet",
  "launch_digests": {{
    "2": "{digest}",
    "10": "{digest}"
  }},
"#,
                "ef".repeat(32)
            ),
        );
        let manifest = Manifest::from_json(with.as_bytes()).unwrap();
        assert_eq!(manifest.stage0.as_ref().map(|stage0| stage0.bytes), Some(9));
        assert_eq!(manifest.launch_digests.get(&10), Some(&LaunchDigest([0xcd; 48])));
        assert_eq!(String::from_utf8(manifest.to_json().unwrap()).unwrap(), with);
        let read = |from: &str, to: &str| Manifest::from_json(with.replace(from, to).as_bytes());
        assert!(read(&digest, &digest[2..]).is_err());
        assert!(read("\"10\"", "\"x\"").is_err() && read("\"10\"", "\"256\"").is_err());
    }

    #[test]
    fn other_versions_and_digests_are_refused() {
        let read = |from: &str, to: &str| Manifest::from_json(TEXT.replace(from, to).as_bytes());
        assert!(matches!(read("\"version\": 1", "\"version\": 2"), Err(ManifestError::Version(2))));
        assert!(read("\"version\": 1", "\"version\": 1, \"more\": 1").is_ok());
        assert!(matches!(read("abab", "ab"), Err(ManifestError::Json(_))));
        assert!(matches!(read("\"cmdline\": \"quiet\",", ""), Err(ManifestError::Json(_))));
    }
}
