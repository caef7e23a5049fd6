//! The job disk: everything that is copied into L1, as one tar with the paths in L1.

use crate::testbed::{images::Images, machine::JOB_DISK_BYTES};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Programs that `make install` and L1 have in /usr/local/bin.
pub const PROGRAMS: &[&str] = &["containerd-shim-casemate-v2", "casemate-vmm", "casemate-converter", "casemate"];
/// Files of the guest image in /usr/local/share/casemate.
pub const GUEST_FILES: &[&str] = &["vmlinux", "initramfs.cpio", "stage0", "manifest.json"];

/// The programs and the guest image to test.
pub struct Build {
    /// Directory of the programs, including the story runner.
    pub programs: PathBuf,
    /// Directory of the guest image.
    pub guest: PathBuf,
}

impl Build {
    /// Files that casemate needs and that do not exist.
    pub fn missing(&self) -> Vec<PathBuf> {
        let programs = PROGRAMS.iter().map(|name| self.programs.join(name));
        let guest = GUEST_FILES.iter().map(|name| self.guest.join(name));
        programs.chain(guest).filter(|file| !file.exists()).collect()
    }
}

/// A packed job disk; dropping it removes its file.
pub struct Job {
    disk: tempfile::TempPath,
    digest: String,
}

impl Job {
    /// Packs the build if it exists (stories on runc do not need it), the story runner and the images.
    pub fn pack(build: &Build, images: &Images, scratch: &Path) -> Result<Self> {
        Self::pack_with(build, images, &[], scratch)
    }

    /// As [`Self::pack`], with more files: the path on this host, and the path in L1 without the leading slash.
    pub fn pack_with(build: &Build, images: &Images, more: &[(PathBuf, String)], scratch: &Path) -> Result<Self> {
        std::fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let disk = tempfile::Builder::new().prefix("job-").suffix(".tar").tempfile_in(scratch);
        let (file, disk) = disk
            .with_context(|| format!("cannot create the job disk in {}", scratch.display()))?
            .into_parts();
        let mut tar = tar::Builder::new(file);
        add(&mut tar, &build.programs.join("story"), "job/story", 0o755)?;
        if build.missing().is_empty() {
            for name in PROGRAMS {
                add(&mut tar, &build.programs.join(name), &format!("usr/local/bin/{name}"), 0o755)?;
            }
            for name in GUEST_FILES {
                add(
                    &mut tar,
                    &build.guest.join(name),
                    &format!("usr/local/share/casemate/{name}"),
                    0o644,
                )?;
            }
        }
        for image in &images.files {
            let name = image.file_name().unwrap_or_default().to_string_lossy();
            add(&mut tar, image, &format!("job/images/{name}"), 0o644)?;
        }
        for (from, name) in more {
            add(&mut tar, from, name, 0o755)?;
        }
        let file = tar.into_inner().context("cannot finish the job disk")?;
        let length = file.metadata().context("cannot measure the job disk")?.len();
        if length > JOB_DISK_BYTES {
            bail!("the job has {length} bytes, the disk of L1 {JOB_DISK_BYTES}");
        }
        file.set_len(JOB_DISK_BYTES).context("cannot pad the job disk")?;
        let digest = digest(&disk, length)?;
        Ok(Self { disk, digest })
    }

    /// The disk's file.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// SHA-256 of the content in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn add(tar: &mut tar::Builder<File>, from: &Path, name: &str, mode: u32) -> Result<()> {
    let file = File::open(from).with_context(|| format!("{} is missing: `make` builds it", from.display()))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(file.metadata().with_context(|| format!("cannot measure {}", from.display()))?.len());
    header.set_mode(mode);
    header.set_mtime(0);
    tar.append_data(&mut header, name, file)
        .with_context(|| format!("cannot pack {}", from.display()))
}

fn digest(disk: &Path, length: u64) -> Result<String> {
    let mut file = File::open(disk).context("cannot read the job disk")?.take(length);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    while let n @ 1.. = file.read(&mut chunk).context("cannot read the job disk")? {
        hash.update(&chunk[..n]);
    }
    Ok(hex::encode(hash.finalize()))
}
