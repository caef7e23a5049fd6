//! Layer tars from Debian packages and generated entries, with the packages' owners and modes and nothing of this machine.

use crate::testbed::host;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// What container images leave out of packages, as with dpkg's `path-exclude`. Documentation stays: a later layer removes it.
const EXCLUDED: &[&str] = &[
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/lib/x86_64-linux-gnu/gconv/",
];

/// A layer under construction.
pub struct LayerTar {
    tar: tar::Builder<Vec<u8>>,
    directories: BTreeSet<String>,
}

impl Default for LayerTar {
    fn default() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            directories: BTreeSet::new(),
        }
    }
}

impl LayerTar {
    /// Adds the files of a package. A directory that two packages share is added once.
    pub fn package(&mut self, deb: &Path) -> Result<()> {
        let output = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(deb)
            .output()
            .context("cannot start dpkg-deb")?;
        if !output.status.success() {
            anyhow::bail!("dpkg-deb cannot read {}: {}", deb.display(), host::tail(&output.stderr, 500));
        }
        let mut archive = tar::Archive::new(&output.stdout[..]);
        for entry in archive.entries().with_context(|| format!("no tar in {}", deb.display()))? {
            let mut entry = entry.with_context(|| format!("a broken tar in {}", deb.display()))?;
            let path = entry
                .path()
                .context("a path that is not UTF-8")?
                .to_string_lossy()
                .trim_start_matches("./")
                .to_owned();
            if path.is_empty() || EXCLUDED.iter().any(|prefix| path.starts_with(prefix)) {
                continue;
            }
            let mut header = entry.header().clone();
            if header.entry_type().is_dir() {
                self.directory_as(&path, header)?;
            } else if let Some(target) = entry.link_name().context("a link that is not UTF-8")? {
                let target = target.to_string_lossy().trim_start_matches("./").to_owned();
                self.tar
                    .append_link(&mut header, &path, target)
                    .with_context(|| format!("cannot add {path}"))?;
            } else {
                let mut data = Vec::new();
                entry.read_to_end(&mut data).with_context(|| format!("cannot read {path}"))?;
                self.tar
                    .append_data(&mut header, &path, &data[..])
                    .with_context(|| format!("cannot add {path}"))?;
            }
        }
        Ok(())
    }

    /// Adds a directory owned by root.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.directory_as(path, header(mode, tar::EntryType::Directory, 0))
    }

    fn directory_as(&mut self, path: &str, mut header: tar::Header) -> Result<()> {
        let path = format!("{}/", path.trim_end_matches('/'));
        if self.directories.insert(path.clone()) {
            self.tar
                .append_data(&mut header, &path, &[][..])
                .with_context(|| format!("cannot add {path}"))?;
        }
        Ok(())
    }

    /// Adds a file owned by root.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let mut header = header(mode, tar::EntryType::Regular, data.len() as u64);
        self.tar
            .append_data(&mut header, path, data)
            .with_context(|| format!("cannot add {path}"))
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.tar
            .append_link(&mut header(0o777, tar::EntryType::Symlink, 0), path, target)
            .with_context(|| format!("cannot add {path}"))
    }

    /// Removes a path of the layers below (image-spec, "Whiteouts").
    pub fn whiteout(&mut self, path: &str) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').with_context(|| format!("{path} has no directory"))?;
        self.file(&format!("{dir}/.wh.{name}"), 0o644, &[])
    }

    /// Empties a directory of the layers below ("Opaque Whiteout").
    pub fn opaque(&mut self, directory: &str) -> Result<()> {
        self.directory(directory, 0o755)?;
        self.file(&format!("{directory}/.wh..wh..opq"), 0o644, &[])
    }

    /// The finished tar.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.tar.into_inner().context("cannot finish a layer")
    }
}

fn header(mode: u32, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_have_their_names() {
        let mut layer = LayerTar::default();
        layer.whiteout("etc/motd").unwrap();
        layer.opaque("usr/share/doc").unwrap();
        layer.directory("usr/share/doc", 0o755).unwrap();
        let tar = layer.finish().unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["etc/.wh.motd", "usr/share/doc/", "usr/share/doc/.wh..wh..opq"]);
    }
}
