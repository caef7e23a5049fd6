//! The cache directory, and file writes that leave either the whole file or none.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// `${XDG_CACHE_HOME:-~/.cache}/casemate`.
pub fn root() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _) if !dir.is_empty() => PathBuf::from(dir),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".cache"),
        _ => bail!("no cache directory: neither XDG_CACHE_HOME nor HOME is set"),
    };
    Ok(base.join("casemate"))
}

/// First 16 hex digits of the SHA-256 over all parts, each preceded by its length.
pub fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..8])
}

/// Writes a file under a temporary name in the same directory, then renames it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial_name(path);
    std::fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("cannot rename to {}", path.display()))
}

/// Copies a file in the same way as [`write_whole`].
pub fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let partial = partial_name(to);
    std::fs::copy(from, &partial).with_context(|| format!("cannot copy {} to {}", from.display(), partial.display()))?;
    std::fs::rename(&partial, to).with_context(|| format!("cannot rename to {}", to.display()))
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_where_a_part_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_eq!(key(&[b"ab"]).len(), 16);
    }

    #[test]
    fn no_partial_file_remains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_whole(&path, b"1").unwrap();
        copy_whole(&path, &dir.path().join("y")).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
