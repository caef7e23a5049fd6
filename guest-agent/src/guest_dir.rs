//! Directories that an image, a container or the host can modify, opened without ever following a symbolic link.
//!
//! The host can write to a scratch disk without encryption, and a container writes to the directories that it mounts.
//! A symbolic link planted there would lead a mount of the agent to the guest's own files. So each such path is resolved once,
//! below the root and through real directories only, and later calls use the descriptor.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Component, Path},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, mkdirat},
};

/// Mode of directories that are created on the way.
const MODE: Mode = Mode::from_bits_truncate(0o755);

/// An open directory.
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens an absolute path that exists.
    ///
    /// # Errors
    /// A component is missing, a symbolic link, or not a directory.
    pub fn open(path: &str) -> io::Result<Self> {
        let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Self(root).below(relative(path)?)
    }

    /// Opens an absolute path and creates what is missing of it.
    ///
    /// # Errors
    /// A component is a symbolic link or not a directory, or cannot be created.
    pub fn make(path: &str) -> io::Result<Self> {
        let mut directory = Self::open("/")?;
        for component in relative(path)?.components() {
            let Component::Normal(name) = component else {
                return Err(ErrorKind::InvalidInput.into());
            };
            match mkdirat(&directory.0, Path::new(name), MODE) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            directory = directory.below(Path::new(name))?;
        }
        Ok(directory)
    }

    /// Creates `name` in it, which must not exist, and opens it.
    ///
    /// # Errors
    /// It exists with any type, or cannot be created.
    pub fn make_new(&self, name: &str, mode: u32) -> io::Result<Self> {
        mkdirat(&self.0, Path::new(name), Mode::from_bits_truncate(mode))?;
        self.below(Path::new(name))
    }

    /// Writes a file `name` in it, which must not exist.
    ///
    /// # Errors
    /// It exists with any type, or cannot be written.
    pub fn write_new(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let path = format!("{}/{name}", self.path());
        // New, so no link is followed.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)
    }

    /// Removes `name` in it with everything below; symbolic links are removed, not followed.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove_all(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(format!("{}/{name}", self.path()))
    }

    /// A path that the kernel resolves to this very directory, for calls that take no descriptor.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    fn below(&self, path: &Path) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(Self(openat2(&self.0, path, how)?))
    }
}

/// The directory of an absolute path, and the last name in it.
///
/// # Errors
/// The path has no last name.
pub fn split(path: &str) -> io::Result<(&str, &str)> {
    match path.rsplit_once('/') {
        Some((parent, name)) if !name.is_empty() && name != ".." => Ok((if parent.is_empty() { "/" } else { parent }, name)),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

fn relative(path: &str) -> io::Result<&Path> {
    let below = path.strip_prefix('/').ok_or(ErrorKind::InvalidInput)?;
    Ok(Path::new(if below.is_empty() { "." } else { below }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn base() -> (tempfile::TempDir, String) {
        let base = tempfile::tempdir().unwrap();
        // /tmp itself may be a link.
        let path = base.path().canonicalize().unwrap().to_str().unwrap().to_owned();
        (base, path)
    }

    #[test]
    fn missing_directories_are_created() {
        let (_kept, base) = base();
        let made = Directory::make(&format!("{base}/a/b")).unwrap();
        fs::write(format!("{}/file", made.path()), "x").unwrap();
        assert_eq!(fs::read_to_string(format!("{base}/a/b/file")).unwrap(), "x");
        assert!(Directory::open(&format!("{base}/a/b")).is_ok());
        assert!(Directory::open(&format!("{base}/a/c")).is_err());
        assert!(Directory::open("relative").is_err());
    }

    #[test]
    fn no_symbolic_link_is_followed() {
        let (_kept, base) = base();
        fs::create_dir_all(format!("{base}/guest/secret")).unwrap();
        fs::create_dir(format!("{base}/scratch")).unwrap();
        symlink("../guest", format!("{base}/scratch/inside")).unwrap();
        symlink(format!("{base}/guest"), format!("{base}/scratch/outside")).unwrap();
        for planted in ["inside", "outside", "inside/secret", "outside/secret", "inside/new"] {
            assert!(Directory::open(&format!("{base}/scratch/{planted}")).is_err(), "{planted}");
            assert!(Directory::make(&format!("{base}/scratch/{planted}")).is_err(), "{planted}");
        }
        assert!(
            !Path::new(&format!("{base}/guest/new")).exists(),
            "nothing was created behind the link"
        );
        let scratch = Directory::open(&format!("{base}/scratch")).unwrap();
        assert!(scratch.make_new("inside", 0o700).is_err());
        symlink(format!("{base}/guest/planted"), format!("{base}/scratch/file")).unwrap();
        assert!(scratch.write_new("file", b"x", 0o700).is_err());
        assert!(!Path::new(&format!("{base}/guest/planted")).exists());
        // The link itself is removed.
        scratch.remove_all("inside").unwrap();
        assert!(Path::new(&format!("{base}/guest/secret")).exists());
    }

    #[test]
    fn removal_does_not_leave_the_directory() {
        let (_kept, base) = base();
        fs::create_dir_all(format!("{base}/guest/secret")).unwrap();
        let upper = Directory::make(&format!("{base}/scratch/c")).unwrap();
        symlink(format!("{base}/guest"), format!("{}/link", upper.path())).unwrap();
        Directory::open(&format!("{base}/scratch")).unwrap().remove_all("c").unwrap();
        assert!(!Path::new(&format!("{base}/scratch/c")).exists());
        assert!(Path::new(&format!("{base}/guest/secret")).exists());
    }

    #[test]
    fn a_path_has_a_last_name() {
        assert_eq!(split("/a/b").unwrap(), ("/a", "b"));
        assert_eq!(split("/a").unwrap(), ("/", "a"));
        for bad in ["", "/", "/a/", "/a/..", "a"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
