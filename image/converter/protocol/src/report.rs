//! The report: what became of a conversion.

use layer::{Converted, Notes};
use serde::{Deserialize, Serialize};

/// Longest report, with all texts before it, in bytes.
pub const REPORT_MAX_BYTES: usize = 64 << 10;

/// What a converter says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The image is written.
    Converted(Converted),
    /// The layer cannot be converted: the error and its causes.
    Refused(String),
    /// The converter could not begin: the error and its causes.
    Unable(String),
}

/// The line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Converted(Geometry),
    Refused(String),
    Unable(String),
}

#[derive(Serialize, Deserialize)]
struct Geometry {
    root_hash: String,
    diff_id: String,
    data_blocks: u64,
    total_blocks: u64,
    access_lists: u64,
    times: u64,
}

impl Report {
    /// The line, with its end.
    pub fn to_line(&self) -> String {
        let line = match self {
            Self::Converted(converted) => Line::Converted(Geometry {
                root_hash: converted.root_hash.to_string(),
                diff_id: converted.diff_id.to_string(),
                data_blocks: converted.data_blocks,
                total_blocks: converted.total_blocks,
                access_lists: converted.notes.access_lists,
                times: converted.notes.times,
            }),
            Self::Refused(text) => Line::Refused(text.clone()),
            Self::Unable(text) => Line::Unable(text.clone()),
        };
        // Numbers and texts only, which always have a text.
        let mut line = serde_json::to_string(&line).unwrap_or_default();
        line.push('\n');
        line
    }

    /// The report in all that a converter said: its last line. `None` when that is none.
    pub fn in_output(output: &[u8]) -> Option<Self> {
        let last = output.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
        Some(match serde_json::from_slice(last).ok()? {
            Line::Converted(geometry) => Self::Converted(Converted {
                root_hash: geometry.root_hash.parse().ok()?,
                diff_id: geometry.diff_id.parse().ok()?,
                data_blocks: geometry.data_blocks,
                total_blocks: geometry.total_blocks,
                notes: Notes {
                    access_lists: geometry.access_lists,
                    times: geometry.times,
                },
            }),
            Line::Refused(text) => Self::Refused(text),
            Line::Unable(text) => Self::Unable(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_report() {
        let hash = "ab".repeat(32);
        let converted = Report::Converted(Converted {
            root_hash: hash.parse().unwrap(),
            diff_id: format!("sha256:{hash}").parse().unwrap(),
            data_blocks: 3,
            total_blocks: 5,
            notes: Notes { access_lists: 1, times: 2 },
        });
        for report in [
            converted,
            Report::Refused("entry \"a\nb\": no".into()),
            Report::Unable(String::new()),
        ] {
            let said = format!("a warning\n{}", report.to_line());
            assert_eq!(said.lines().count(), 2);
            assert_eq!(Report::in_output(said.as_bytes()), Some(report));
        }
    }

    #[test]
    fn anything_else_is_no_report() {
        let hash = "ab".repeat(32);
        let short = format!(
            r#"{{"converted":{{"root_hash":"{hash}","diff_id":"{hash}","data_blocks":1,"total_blocks":2,"access_lists":0,"times":0}}}}"#
        );
        for said in ["", "\n", "text\n", "{}\n", r#"{"refused":"cut"}"#, &format!("{short}\n"), "\u{0}\n"] {
            assert_eq!(Report::in_output(said.as_bytes()), None, "{said:?}");
        }
    }
}
