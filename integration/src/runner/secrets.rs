//! Looks for secrets in everything that tests and stories have printed, logged and left.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A word that every password and token of tests and stories has in it.
const MARK: &str = "hunter2";
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// What a search has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Files that were read.
    pub files: usize,
    /// Those with a secret in them.
    pub leaks: BTreeSet<PathBuf>,
}

/// Searches every file below a directory for secrets, as they are and in base64. Disks that machines were given hold the stories
/// themselves, and so their secrets: they are left out.
pub fn search(dir: &Path) -> Result<Search> {
    let forms = forms();
    let mut found = Search::default();
    let mut directories = vec![dir.to_owned()];
    while let Some(dir) = directories.pop() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let path = entry.path();
            let kind = entry.file_type().with_context(|| format!("cannot examine {}", path.display()))?;
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() && !is_job_disk(&path) {
                found.files += 1;
                let holds = holds(&path, &forms).with_context(|| format!("cannot read {}", path.display()))?;
                found.leaks.extend(holds.then_some(path));
            }
        }
    }
    Ok(found)
}

fn is_job_disk(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("job-") && name.ends_with(".tar")
}

/// The mark, and what base64 makes of it after a multiple of three bytes, one more, and two more.
fn forms() -> Vec<Vec<u8>> {
    let encoded = (0..3).map(|before| {
        let text = STANDARD_NO_PAD.encode([&vec![0; before][..], MARK.as_bytes()].concat());
        // The first characters and the last one may hold bits of what is around the mark.
        let whole = (before + MARK.len()) * 8 / 6;
        text.as_bytes()[(before * 8).div_ceil(6)..whole].to_vec()
    });
    std::iter::once(MARK.as_bytes().to_vec()).chain(encoded).collect()
}

fn holds(path: &Path, forms: &[Vec<u8>]) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let longest = forms.iter().map(Vec::len).max().unwrap_or_default();
    let mut kept = Vec::new();
    loop {
        let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut kept)?;
        let is_in = |form: &Vec<u8>| kept.windows(form.len()).any(|part| part == form);
        if forms.iter().any(is_in) {
            return Ok(true);
        }
        if count == 0 {
            return Ok(false);
        }
        // A mark may begin in one chunk and end in the next.
        kept.drain(..kept.len().saturating_sub(longest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn a_secret_is_found_in_every_form_and_across_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
        write("clean", b"hunter 2, aHVudGVy");
        write("job-x.tar", MARK.as_bytes());
        assert_eq!(
            search(dir.path()).unwrap(),
            Search {
                files: 1,
                leaks: BTreeSet::new()
            }
        );

        std::fs::create_dir(dir.path().join("below")).unwrap();
        write("below/plain", format!("password={MARK}!").as_bytes());
        for before in ["", "u:", "ro:", "robot:"] {
            write(
                &format!("basic-{before}"),
                STANDARD.encode(format!("{before}{MARK}-more")).as_bytes(),
            );
        }
        let mut long = vec![b'.'; CHUNK - 3];
        long.extend(MARK.as_bytes());
        write("long", &long);
        let found = search(dir.path()).unwrap();
        assert_eq!((found.files, found.leaks.len()), (7, 6), "{found:?}");
    }
}
