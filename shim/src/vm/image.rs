//! The guest image: kernel, initramfs and the manifest that names their digests.

use serde::Deserialize;
use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};
use vm_spec::HostData;

/// Version of the manifest that we read.
const VERSION: u32 = 1;

/// The part of `manifest.json` that a boot needs; it names more, for verifiers.
#[derive(Debug, Deserialize)]
struct Manifest {
    version: u32,
    kernel: Artifact,
    initrd: Artifact,
    cmdline: String,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    file: String,
    sha256: HostData,
}

/// An opened guest image.
pub struct GuestImage {
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
    /// The manifest is not one.
    #[error("{} is not a manifest of a guest image", .0.display())]
    Json(PathBuf, #[source] serde_json::Error),
    /// A manifest of another time.
    #[error("the guest image's manifest has version {0}, not {VERSION}")]
    Version(u32),
    /// A file outside of the image's directory.
    #[error("the guest image's manifest names {0:?}, which is no plain file name")]
    Name(String),
}

impl GuestImage {
    /// Opens the image in `dir`. The digests are the manifest's: the VMM writes them into the boot manifest, and a
    /// measured guest checks them.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join("manifest.json");
        let text = fs::read(&path).map_err(|e| ImageError::Read(path.clone(), e))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| ImageError::Json(path, e))?;
        if manifest.version != VERSION {
            return Err(ImageError::Version(manifest.version));
        }
        Ok(Self {
            kernel: open(dir, &manifest.kernel.file)?,
            kernel_sha256: manifest.kernel.sha256,
            initrd: open(dir, &manifest.initrd.file)?,
            initrd_sha256: manifest.initrd.sha256,
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
            r#"{{"version":{version},"kernel":{{"file":"{kernel}","sha256":"{digest}","bytes":1}},"initrd":{{"file":"initramfs.cpio","sha256":"{digest}"}},"cmdline":"quiet","inputs":[]}}"#
        );
        fs::write(dir.join("manifest.json"), manifest).unwrap();
        fs::write(dir.join("initramfs.cpio"), "i").unwrap();
        fs::write(dir.join("vmlinux"), "k").unwrap();
    }

    #[test]
    fn an_image_is_opened_by_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "vmlinux", 1);
        let image = GuestImage::open(dir.path()).unwrap();
        assert_eq!((image.cmdline.as_str(), image.kernel_sha256.0), ("quiet", [0xab; 32]));
    }

    #[test]
    fn a_manifest_cannot_name_files_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../vmlinux", "/etc/passwd", "a/b", ""] {
            write(dir.path(), name, 1);
            assert!(matches!(GuestImage::open(dir.path()), Err(ImageError::Name(_))), "{name:?}");
        }
        write(dir.path(), "vmlinux", 2);
        assert!(matches!(GuestImage::open(dir.path()), Err(ImageError::Version(2))));
        assert!(matches!(GuestImage::open(Path::new("/nonexistent")), Err(ImageError::Read(..))));
    }
}
