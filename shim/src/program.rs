//! Where the programs are that a shim starts.

use nix::unistd::{AccessFlags, access};
use std::path::{Path, PathBuf};

/// The program in the configuration, else the one installed beside this shim, else the one in `PATH`. The search is this
/// process's own: the programs get an empty environment, and one without a path would be looked for in that.
pub fn find(name: &str, configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(configured) = configured {
        return Some(configured.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|shim| shim.parent().map(Path::to_path_buf));
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An empty entry means the working directory (execvp(3)), from which nothing is run.
    let listed = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    find_in(name, beside.into_iter().chain(listed))
}

/// The program in the first of the directories that has one.
fn find_in(name: &str, directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let runs = |file: &PathBuf| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    directories.map(|dir| dir.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_program_is_found_in_a_directory_that_has_an_executable_one() {
        let dirs = ["none", "data", "program"].map(|name| tempfile::Builder::new().prefix(name).tempdir().unwrap());
        for (dir, mode) in [(&dirs[1], 0o644), (&dirs[2], 0o755)] {
            let file = dir.path().join("vmm");
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let listed = || dirs.iter().map(|dir| dir.path().to_path_buf());
        assert_eq!(find_in("vmm", listed()), Some(dirs[2].path().join("vmm")));
        assert_eq!(find_in("vmm", listed().take(2)), None);
        assert_eq!(find("vmm", Some(Path::new("/opt/vmm"))), Some("/opt/vmm".into()));
    }
}
