//! `casemate layer convert|hash|prepare`.

mod prepare;

pub use prepare::{Prepare, prepare};

use crate::output::print;
use crate::progress::Line;
use crate::{input, progress};
use ::layer::{BLOCK_BYTES, Converted, Limits};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tempfile::NamedTempFile;

/// Converts a layer; `output` is created complete or not at all. The root hash is the last line of standard output.
pub fn convert(input: &Path, output: &Path, json: bool) -> Result<()> {
    let directory = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut image = NamedTempFile::new_in(directory).with_context(|| format!("cannot create a file in {}", directory.display()))?;
    let converted = with_input(input, |layer| ::layer::convert(layer, image.as_file_mut(), &Limits::default()))?;
    let finish = || format!("cannot finish {}", output.display());
    readable_by_all(image.as_file()).with_context(finish)?;
    image.as_file().sync_all().with_context(finish)?;
    image.persist(output).map_err(|error| error.error).with_context(finish)?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(finish)?;
    report(&converted, json)
}

/// Prints the root hash of a layer, without writing the image.
pub fn hash(input: &Path, json: bool) -> Result<()> {
    let converted = with_input(input, |layer| ::layer::hash(layer, &Limits::default()))?;
    report(&converted, json)
}

/// Temporary files are readable by their owner only; a layer image is public, and VMMs run as other users.
fn readable_by_all(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

fn report(converted: &Converted, json: bool) -> Result<()> {
    let (ext4, total) = [converted.data_blocks, converted.total_blocks]
        .map(|blocks| blocks * BLOCK_BYTES as u64)
        .into();
    let notes = converted.notes.sentences();
    if json {
        let document = json!({
            "root_hash": converted.root_hash.to_string(), "diff_id": converted.diff_id.to_string(),
            "ext4_bytes": ext4, "bytes": total, "notes": notes,
        });
        return print(&document.to_string());
    }
    eprintln!("diff id  {}", converted.diff_id);
    eprintln!("ext4     {ext4} bytes");
    eprintln!("in all   {total} bytes");
    notes.iter().for_each(|note| eprintln!("note     {note}"));
    print(&converted.root_hash.to_string())
}

fn with_input<E>(input: &Path, act: impl FnOnce(&mut Progress) -> Result<Converted, E>) -> Result<Converted>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (file, total) = input::open(input)?;
    let mut progress = Progress {
        file,
        total,
        read: 0,
        line: Line::new(),
    };
    act(&mut progress).with_context(|| format!("cannot convert {}", input::shown(input)))
}

/// The input file, with a progress line on a terminal.
struct Progress {
    file: Box<dyn Read + Send>,
    /// Bytes of the input; 0 if they are unknown.
    total: u64,
    read: u64,
    line: Line,
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        self.line.update(|| progress::of_bytes(self.read, self.total));
        Ok(count)
    }
}
