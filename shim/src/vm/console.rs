//! The end of a guest's console output, for error messages.

/// Lines that an error message shows.
const LINES: usize = 12;
/// Bytes that are searched for them.
const END_BYTES: usize = 8 * 1024;

/// The last lines of what a console shows, without control characters.
pub fn last_lines(shown: &[u8]) -> String {
    let end = &shown[shown.len().saturating_sub(END_BYTES)..];
    let text = String::from_utf8_lossy(end);
    let lines = text.lines().map(agent_protocol::guest_text);
    let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
    match lines.len() {
        0 => "(nothing was written)".to_owned(),
        n => lines[n.saturating_sub(LINES)..].join("\n"),
    }
}
