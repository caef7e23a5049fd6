//! The end of a guest's console output, for error messages.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Lines that an error message shows.
const LINES: usize = 12;
/// Bytes of the file that are read for them.
const END_BYTES: u64 = 8 * 1024;

/// The last lines of the console file, without control characters.
pub fn last_lines(console: &Path) -> String {
    let bytes = read_end(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(agent_protocol::guest_text);
    let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
    match lines.len() {
        0 => "(nothing was written)".to_owned(),
        n => lines[n.saturating_sub(LINES)..].join("\n"),
    }
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    Ok(end)
}
