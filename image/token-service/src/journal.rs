//! Lines on standard error for who runs the service; what came from outside is escaped.

use std::io::Write as _;

/// A line about something that works otherwise than wished.
pub(crate) fn warn(text: &str) {
    line("warning", text);
}

/// A line about something that happened.
pub(crate) fn note(text: &str) {
    line("note", text);
}

fn line(level: &str, text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "casemate registry: {level}: {}", text.escape_debug());
}
