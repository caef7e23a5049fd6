//! The disk with the operator's configuration of registries, for a guest that pulls images itself.
//!
//! Nothing of the text is parsed here: what it says concerns the guest's puller alone, which refuses a text that is none.

use super::VmError;
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use registry_device::{CONFIG_MAX_BYTES, DeviceError};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};
use zeroize::Zeroizing;

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// Too long.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// This host has no memory for the disk.
    #[error("the disk cannot be made")]
    Write(#[source] io::Error),
}

/// The disk, in memory only, because it holds passwords; `None` without a file.
pub fn disk(path: &Path) -> Result<Option<File>, VmError> {
    read(path).map_err(|error| VmError::Registries(path.to_owned(), error))
}

fn read(path: &Path) -> Result<Option<File>, RegistriesError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(RegistriesError::Read)?,
    };
    let mut text = Zeroizing::new(Vec::new());
    let whole = file.take(CONFIG_MAX_BYTES as u64 + 1).read_to_end(&mut text);
    whole.map_err(RegistriesError::Read)?;
    let disk = registry_device::encode(&text)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = memfd_create("registries", flags)
        .map(File::from)
        .map_err(|error| RegistriesError::Write(error.into()))?;
    copy.write_all(&disk).map_err(RegistriesError::Write)?;
    // The VMM has the same descriptor, and may write to its scratch disk alone.
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map_err(|error| RegistriesError::Write(error.into()))?;
    Ok(Some(copy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn the_text_is_on_the_disk_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.toml");
        assert!(disk(&path).unwrap().is_none());
        std::fs::write(&path, "no configuration [").unwrap();
        let file = disk(&path).unwrap().unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(file.write_at(b"x", 0).is_err() && file.set_len(0).is_err(), "it is sealed");
        assert_eq!(registry_device::decode(bytes.as_slice()).unwrap().as_slice(), b"no configuration [");
        File::create(&path).unwrap().set_len(CONFIG_MAX_BYTES as u64 + 1).unwrap();
        let error = disk(&path).unwrap_err().to_string();
        assert!(error.contains("registries.toml"), "{error}");
        assert!(matches!(
            disk(directory.path()),
            Err(VmError::Registries(_, RegistriesError::Read(_)))
        ));
    }
}
