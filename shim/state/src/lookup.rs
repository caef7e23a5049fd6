//! Which sandboxes a node has, and the one of a given id in whichever namespace it is.

use crate::{SandboxDir, StateError, at};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Paths of all state directories below `root`, by namespace and id; none when `root` does not exist.
///
/// # Errors
/// When a directory cannot be read.
pub fn all(root: &Path) -> Result<Vec<PathBuf>, StateError> {
    let mut found = Vec::new();
    for namespace in subdirectories(root)? {
        found.extend(subdirectories(&namespace)?);
    }
    Ok(found)
}

/// Opens the state directory of the sandbox `id`.
///
/// # Errors
/// When there is none, when several namespaces have one, or when a directory cannot be read.
pub fn find(root: &Path, id: &str) -> Result<SandboxDir, StateError> {
    let mut found = all(root)?;
    found.retain(|path| path.file_name().is_some_and(|name| name == id));
    match (found.pop(), found.len()) {
        (None, _) => Err(StateError::NotFound(id.to_owned())),
        (Some(path), 0) => SandboxDir::open(path),
        (Some(_), others) => Err(StateError::Ambiguous {
            id: id.to_owned(),
            namespaces: others + 1,
        }),
    }
}

/// Sorted by name. A directory that vanishes meanwhile has none: its sandbox has ended.
fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>, StateError> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at("read", directory))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry.map_err(at("read", directory))?.path());
    }
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_must_name_one_sandbox() {
        let root = tempfile::tempdir().unwrap();
        let make = |namespace: &str| {
            let path = SandboxDir::path_below(root.path(), namespace, "web");
            fs::create_dir_all(&path).unwrap();
            path
        };
        let first = make("default");
        assert_eq!(find(root.path(), "web").unwrap().path(), first);
        assert!(matches!(find(root.path(), "db"), Err(StateError::NotFound(_))));
        let second = make("k8s.io");
        assert!(matches!(find(root.path(), "web"), Err(StateError::Ambiguous { namespaces: 2, .. })));
        fs::write(root.path().join("k8s.io/file"), "").unwrap();
        assert_eq!(all(root.path()).unwrap(), [first, second]);
        assert!(all(Path::new("/nonexistent")).unwrap().is_empty());
    }
}
