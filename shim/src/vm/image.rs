//! The guest image: kernel, initramfs, the manifest with their digests, and signed reference values.

use crate::config::Boot;
use agent_protocol::limits::REFERENCE_BYTES;
use base64::{Engine, engine::general_purpose::STANDARD};
use guest_manifest::{FILE_NAME, Manifest, ManifestError};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Component, Path, PathBuf},
};
use vm_spec::HostData;

/// Signed reference values beside the image, for verifiers: COSE, which this host does not parse.
const REFERENCE: &str = "reference_info.cose";
/// The same as a hash envelope.
const TRANSPARENT_REFERENCE: &str = "reference_info_hash_envelope.cose";
/// Longest of either, in bytes: the agent's limit is for base64.
const REFERENCE_FILE_BYTES: u64 = (REFERENCE_BYTES / 4 * 3) as u64;

/// An opened guest image.
pub struct GuestImage {
    /// stage0, if it is to start the kernel.
    pub stage0: Option<File>,
    /// ELF `vmlinux`.
    pub kernel: File,
    /// Its digest by the manifest.
    pub kernel_sha256: HostData,
    /// Initramfs.
    pub initrd: File,
    /// Its digest by the manifest.
    pub initrd_sha256: HostData,
    /// Kernel command line.
    pub cmdline: String,
}

/// Why a guest image cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the image cannot be read.
    #[error("cannot read {} of the guest image", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The manifest cannot be used.
    #[error("cannot use {}", .0.display())]
    Manifest(PathBuf, #[source] ManifestError),
    /// A file outside of the image's directory.
    #[error("the guest image's manifest names {0:?}, which is no plain file name")]
    Name(String),
    /// An image of an older version.
    #[error("the guest image in {} has no stage0, which the configuration's `boot = \"verified\"` needs; build it again", .0.display())]
    NoStage0(PathBuf),
    /// The reference values are longer than the agent accepts.
    #[error("{} is longer than {REFERENCE_FILE_BYTES} bytes", .0.display())]
    Long(PathBuf),
}

/// Signed reference values of an image, in base64; empty where it has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// As the image's publisher signed them.
    pub plain: String,
    /// As a hash envelope.
    pub transparent: String,
}

impl References {
    /// Reads the reference values beside the image in `dir`.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read(dir: &Path) -> Result<Self, ImageError> {
        Ok(Self {
            plain: reference(dir.join(REFERENCE))?,
            transparent: reference(dir.join(TRANSPARENT_REFERENCE))?,
        })
    }
}

fn reference(path: PathBuf) -> Result<String, ImageError> {
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(REFERENCE_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(ImageError::Read(path, error)),
        Ok(_) if bytes.len() as u64 > REFERENCE_FILE_BYTES => Err(ImageError::Long(path)),
        Ok(_) => Ok(STANDARD.encode(bytes)),
    }
}

impl GuestImage {
    /// Opens the image in `dir`. The digests are the manifest's: the VMM writes them into the boot manifest, and a
    /// measured guest checks them.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn open(dir: &Path, boot: Boot) -> Result<Self, ImageError> {
        let path = dir.join(FILE_NAME);
        let text = fs::read(&path).map_err(|e| ImageError::Read(path.clone(), e))?;
        let manifest = Manifest::from_json(&text).map_err(|e| ImageError::Manifest(path, e))?;
        let stage0 = match (boot, manifest.stage0) {
            (Boot::Direct, _) => None,
            (Boot::Verified, Some(stage0)) => Some(open(dir, &stage0.file)?),
            (Boot::Verified, None) => return Err(ImageError::NoStage0(dir.to_owned())),
        };
        Ok(Self {
            stage0,
            kernel: open(dir, &manifest.kernel.file)?,
            kernel_sha256: HostData(manifest.kernel.sha256),
            initrd: open(dir, &manifest.initrd.file)?,
            initrd_sha256: HostData(manifest.initrd.sha256),
            cmdline: manifest.cmdline,
        })
    }
}

fn open(dir: &Path, name: &str) -> Result<File, ImageError> {
    let mut components = Path::new(name).components();
    let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
        return Err(ImageError::Name(name.to_owned()));
    };
    let path = dir.join(name);
    File::open(&path).map_err(|e| ImageError::Read(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, kernel: &str, version: u32) {
        let digest = "ab".repeat(32);
        let manifest = format!(
            r#"{{"version":{version},"kernel":{{"file":"{kernel}","sha256":"{digest}","bytes":1}},"initrd":{{"file":"initramfs.cpio","sha256":"{digest}","bytes":1}},"cmdline":"quiet","inputs":[],"compiler":"gcc"}}"#
        );
        fs::write(dir.join(FILE_NAME), manifest).unwrap();
        fs::write(dir.join("initramfs.cpio"), "i").unwrap();
        fs::write(dir.join("vmlinux"), "k").unwrap();
    }

    #[test]
    fn an_image_is_opened_by_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "vmlinux", 1);
        let image = GuestImage::open(dir.path(), Boot::Direct).unwrap();
        assert_eq!((image.cmdline.as_str(), image.kernel_sha256.0), ("quiet", [0xab; 32]));
    }

    #[test]
    fn stage0_is_opened_if_it_boots_the_guest() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "vmlinux", 1);
        let verified = || GuestImage::open(dir.path(), Boot::Verified);
        assert!(matches!(verified(), Err(ImageError::NoStage0(_))));
        let manifest = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let stage0 = format!(r#"{{"stage0":{{"file":"stage0","sha256":"{}","bytes":1}},"#, "cd".repeat(32));
        fs::write(dir.path().join(FILE_NAME), manifest.replacen('{', &stage0, 1)).unwrap();
        assert!(matches!(verified(), Err(ImageError::Read(path, _)) if path.ends_with("stage0")));
        fs::write(dir.path().join("stage0"), "s").unwrap();
        assert!(verified().unwrap().stage0.is_some());
        assert!(GuestImage::open(dir.path(), Boot::Direct).unwrap().stage0.is_none());
    }

    #[test]
    fn reference_values_are_optional() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(References::read(dir.path()).unwrap(), References::default());
        fs::write(dir.path().join(REFERENCE), "cose").unwrap();
        assert_eq!(References::read(dir.path()).unwrap().plain, "Y29zZQ==");
        fs::write(dir.path().join(TRANSPARENT_REFERENCE), vec![0; REFERENCE_FILE_BYTES as usize + 1]).unwrap();
        assert!(matches!(References::read(dir.path()), Err(ImageError::Long(_))));
    }

    #[test]
    fn a_manifest_cannot_name_files_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../vmlinux", "/etc/passwd", "a/b", ""] {
            write(dir.path(), name, 1);
            assert!(
                matches!(GuestImage::open(dir.path(), Boot::Direct), Err(ImageError::Name(_))),
                "{name:?}"
            );
        }
        write(dir.path(), "vmlinux", 2);
        assert!(matches!(
            GuestImage::open(dir.path(), Boot::Direct),
            Err(ImageError::Manifest(_, ManifestError::Version(2)))
        ));
        assert!(matches!(
            GuestImage::open(Path::new("/nonexistent"), Boot::Direct),
            Err(ImageError::Read(..))
        ));
    }
}
