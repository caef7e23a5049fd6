//! The launcher's program as it is executed: a memory file that cannot be changed. The puller's is one too, since it is packed.
//!
//! A container can make the launcher run inside (`/proc/self/exe` as its entry point, or as the program of an exec), keep the
//! file open through `/proc/<pid>/exe` and open it for writing once no process runs it (CVE-2019-5736). What is executed is
//! therefore a copy without a path, sealed against every change, and immutable, so that even opening it for writing fails.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use flate2::read::GzDecoder;
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::sys;

/// `/proc/<pid>/exe` of a process that runs it is a link to `/memfd:` followed by this name.
pub const NAME: &str = "casemate-launcher";

/// The sealed file, open for reading.
pub struct Program(OwnedFd);

impl Program {
    /// All seals against changing content and size, and against removing a seal.
    pub fn seals() -> SealFlag {
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL
    }

    /// Copies the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, there is no memory for a copy, or this kernel cannot seal one.
    pub fn sealed(path: &Path) -> io::Result<Self> {
        Self::of(NAME, File::open(path)?)
    }

    /// Unpacks the file at `path`, which is measured, with gzip; `name` is for `/proc`.
    ///
    /// # Errors
    /// As [`Self::sealed`], or the file is damaged.
    pub fn unpacked(name: &str, path: &Path) -> io::Result<Self> {
        Self::of(name, GzDecoder::new(File::open(path)?))
    }

    fn of(name: &str, mut original: impl Read) -> io::Result<Self> {
        let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | executable;
        let mut copy = File::from(memfd_create(name, flags)?);
        io::copy(&mut original, &mut copy)?;
        fcntl(&copy, FcntlArg::F_ADD_SEALS(Self::seals()))?;
        sys::make_immutable(copy.as_fd())?;
        // A file that is open for writing cannot be executed.
        let readable = File::open(path_of(&copy))?;
        Ok(Self(readable.into()))
    }

    /// A path that a child of this process can execute before any descriptor is closed.
    pub fn path(&self) -> String {
        path_of(&self.0)
    }
}

fn path_of(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reaper::CHILDREN;
    use flate2::{Compression, write::GzEncoder};
    use std::{
        fs::OpenOptions,
        io::Write,
        process::{Command, Stdio},
        sync::PoisonError,
    };

    #[test]
    fn it_runs_and_cannot_be_changed() {
        let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let program = Program::sealed(Path::new("/bin/true")).unwrap();
        let run = || Command::new(program.path()).stdin(Stdio::null()).status().unwrap();
        assert!(run().success());
        for how in [
            OpenOptions::new().write(true),
            OpenOptions::new().append(true),
            OpenOptions::new().read(true).write(true),
        ] {
            let error = how.open(program.path()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        }
        assert!(run().success());
    }

    #[test]
    fn a_packed_program_runs() {
        let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packed = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(&mut packed, Compression::fast());
        gzip.write_all(&std::fs::read("/bin/true").unwrap()).unwrap();
        gzip.finish().unwrap();
        let program = Program::unpacked("true", packed.path()).unwrap();
        assert!(Command::new(program.path()).stdin(Stdio::null()).status().unwrap().success());
        assert!(Program::unpacked("true", Path::new("/bin/true")).is_err());
    }

    #[test]
    fn the_seals_hold_without_the_flag() {
        let program = Program::sealed(Path::new("/bin/true")).unwrap();
        let seals = fcntl(&program.0, FcntlArg::F_GET_SEALS).unwrap();
        assert_eq!(seals & Program::seals().bits(), Program::seals().bits());
        // As a process with CAP_LINUX_IMMUTABLE could.
        if nix::unistd::geteuid().is_root() {
            sys::make_mutable(program.0.as_fd()).unwrap();
            let mut file = OpenOptions::new().write(true).open(program.path()).unwrap();
            assert_eq!(file.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
            assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
    }
}
