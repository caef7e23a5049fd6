//! Finds the program of a process as runc does: by the PATH of the process, among the files of its container.

use std::{
    convert::Infallible,
    ffi::CString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use launcher_protocol::{Cause, Process};
use libcontainer::utils::get_user_home;
use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    unistd::{AccessFlags, execve, faccessat},
};

/// Arguments of execve.
#[derive(Clone)]
pub struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Finds the program of `process` with the root, working directory and privileges of the calling process, and completes the
    /// environment: a missing HOME comes from the container's user database, as with runc.
    ///
    /// # Errors
    /// There is no such program, or it is not executable.
    pub fn find(process: &Process) -> Result<Self, Cause> {
        let mut environment = unique(&process.env);
        let home = |entry: &&str| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty());
        let home_line;
        if !environment.iter().any(home) {
            environment.retain(|entry| !entry.starts_with("HOME="));
            if let Some(home) = get_user_home(process.user.uid) {
                home_line = format!("HOME={}", home.display());
                environment.push(&home_line);
            }
        }
        let name = process.args.first().ok_or(Cause::NotFound)?;
        let path = environment.iter().find_map(|entry| entry.strip_prefix("PATH="));
        Ok(Self {
            path: text(find(name, path.unwrap_or_default())?.into_os_string().into_vec())?,
            arguments: process.args.iter().cloned().map(text).collect::<Result<_, _>>()?,
            environment: environment
                .into_iter()
                .map(|entry| text(entry.to_owned()))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Executes the program in place of the calling process.
    ///
    /// # Errors
    /// The kernel rejects it.
    pub fn execute(&self) -> Result<Infallible, Cause> {
        execve(&self.path, &self.arguments, &self.environment).map_err(|error| match error {
            Errno::ENOENT | Errno::ENOTDIR => Cause::NotFound,
            Errno::EACCES | Errno::EPERM => Cause::NotExecutable,
            Errno::ENOEXEC => Cause::Format,
            _ => Cause::Other,
        })
    }
}

fn text(bytes: impl Into<Vec<u8>>) -> Result<CString, Cause> {
    CString::new(bytes).map_err(|_| Cause::Other)
}

/// The entries `NAME=value`, the last of each name.
fn unique(entries: &[String]) -> Vec<&str> {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let mut unique = Vec::<&str>::new();
    for entry in entries.iter().filter(|entry| name(entry).is_some()) {
        unique.retain(|other| name(other) != name(entry));
        unique.push(entry);
    }
    unique
}

/// A name with a slash is a path; any other is looked up in the directories of `path`, where the first executable file is used.
fn find(name: &str, path: &str) -> Result<PathBuf, Cause> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| name.into());
    }
    let mut cause = Cause::NotFound;
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = Path::new(directory).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Cause::NotFound) => {}
            Err(other) => cause = other,
        }
    }
    Err(cause)
}

fn executable(file: &Path) -> Result<(), Cause> {
    let metadata = file.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Cause::NotExecutable,
        _ => Cause::NotFound,
    })?;
    let may = faccessat(AT_FDCWD, file, AccessFlags::X_OK, nix::fcntl::AtFlags::AT_EACCESS).is_ok();
    if metadata.is_file() && may {
        Ok(())
    } else {
        Err(Cause::NotExecutable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn the_first_executable_file_is_used() {
        let base = tempfile::tempdir().unwrap();
        for (directory, mode) in [("first", 0o644), ("second", 0o755), ("third", 0o755)] {
            let file = base.path().join(directory).join("tool");
            fs::create_dir(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let at = |directory: &str| base.path().join(directory).display().to_string();
        let path = format!("{}:{}:{}", at("first"), at("second"), at("third"));
        assert_eq!(find("tool", &path).unwrap(), base.path().join("second/tool"));
        assert_eq!(find("tool", &at("first")), Err(Cause::NotExecutable));
        assert_eq!(find("tool", ""), Err(Cause::NotFound));
        assert_eq!(find(&at("second/tool"), "").unwrap(), base.path().join("second/tool"));
        assert_eq!(find(&at("second"), ""), Err(Cause::NotExecutable), "a directory");
        assert_eq!(find("./nope", &path), Err(Cause::NotFound));
    }

    #[test]
    fn the_last_entry_of_a_name_is_used_and_invalid_entries_are_dropped() {
        let entries = ["A=1", "PATH=/x", "nonsense", "A=2=3", "B="].map(str::to_owned);
        assert_eq!(unique(&entries), ["PATH=/x", "A=2=3", "B="]);
    }

    #[test]
    fn home_comes_from_the_user_database() {
        let process = |env: &[&str]| Process {
            args: vec!["/bin/sh".to_owned()],
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            ..Process::default()
        };
        let home = |env: &[&str]| {
            let program = Program::find(&process(env)).unwrap();
            let entries = program.environment.iter().map(|entry| entry.to_str().unwrap().to_owned());
            entries.filter(|entry| entry.starts_with("HOME=")).collect::<Vec<_>>()
        };
        assert_eq!(home(&[]), ["HOME=/root"]);
        assert_eq!(home(&["HOME="]), ["HOME=/root"]);
        assert_eq!(home(&["HOME=/x"]), ["HOME=/x"]);
    }
}
