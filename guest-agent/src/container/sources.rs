//! Sources of bind mounts, resolved once and held at a path that nothing but the agent can change.
//!
//! libcontainer takes a path and resolves it again, after the agent has looked at it. So each source is bound to a directory of the
//! agent's own by its descriptor, and that directory is what libcontainer gets.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::guest_dir::Directory;

/// The sources of one container, for as long as it is being created.
pub struct Sources {
    directory: PathBuf,
    staged: BTreeMap<String, PathBuf>,
    /// Those that are the agent's own already.
    own: BTreeMap<String, String>,
}

impl Sources {
    /// None yet; `directory` is the agent's own and does not exist.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            staged: BTreeMap::new(),
            own: BTreeMap::new(),
        }
    }

    /// Has `place` stand for `source`, a file or directory that nothing but the agent can replace.
    pub fn take(&mut self, source: &str, place: String) {
        self.own.insert(source.to_owned(), place);
    }

    /// Binds an open directory, which `source` names.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn stage(&mut self, source: &str, open: &Directory) -> io::Result<()> {
        if self.staged.contains_key(source) {
            return Ok(());
        }
        let place = self.directory.join(self.staged.len().to_string());
        fs::create_dir_all(&place)?;
        mount(Some(open.path().as_str()), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        self.staged.insert(source.to_owned(), place);
        Ok(())
    }

    /// The path that stands for `source`.
    pub fn path_of(&self, source: &str) -> Option<String> {
        let staged = || self.staged.get(source)?.to_str().map(str::to_owned);
        self.own.get(source).cloned().or_else(staged)
    }
}

impl Drop for Sources {
    /// The container has copies of these mounts by now.
    fn drop(&mut self) {
        for place in self.staged.values() {
            let _ = umount2(place, MntFlags::MNT_DETACH);
            // Not what is in it, should it still be mounted.
            let _ = fs::remove_dir(place);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::{os::unix::fs::symlink, thread};

    #[test]
    fn a_component_that_is_swapped_leads_nowhere_else() {
        // Mounts are root's to make.
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: a_component_that_is_swapped_leads_nowhere_else: this test needs root");
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let test = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let (pod, secret) = (base.join("pod"), base.join("secret"));
            fs::create_dir_all(&secret).unwrap();
            fs::write(secret.join("key"), "x").unwrap();
            let source = format!("{}/data", pod.display());
            let open = Directory::make(&source).unwrap();
            fs::write(format!("{source}/mine"), "x").unwrap();
            let mut sources = Sources::new(base.join("staged"));
            sources.stage(&source, &open).unwrap();
            fs::rename(&source, pod.join("away")).unwrap();
            symlink(&secret, &source).unwrap();
            let staged = PathBuf::from(sources.path_of(&source).unwrap());
            assert!(staged.join("mine").exists() && !staged.join("key").exists());
            assert_eq!(staged.canonicalize().unwrap(), staged);
            drop(sources);
            assert!(!base.join("staged").exists());
            assert!(pod.join("away/mine").exists());
        };
        thread::spawn(test).join().unwrap();
    }
}
