//! Loads the modules of a packaged kernel; our own kernel has everything built in and no such directory.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use nix::kmod::{ModuleInitFlags, finit_module};

/// Loads every file of `directory` in the order of its names, if the directory exists.
///
/// The image builder numbers the files so that each comes after those it depends on; all of them are measured.
pub fn load_all(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    for file in files {
        finit_module(&File::open(&file)?, c"", ModuleInitFlags::empty())
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
    }
    Ok(())
}
