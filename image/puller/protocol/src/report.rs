//! The report: what became of a pull.

use crate::job::Blob;
use layer::RootHash;
use serde::{Deserialize, Serialize};

/// Longest report, with all texts before it, in bytes: 400 for each layer, and an error.
pub const REPORT_MAX_BYTES: usize = 128 << 10;

/// What a puller says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The layers of the image, bottom first. A blob that an image has twice is in one file.
    Pulled(Vec<PulledLayer>),
    /// The image cannot be pulled: the error and its causes.
    Refused(String),
    /// The puller could not begin: the error and its causes.
    Unable(String),
}

/// One layer of a pulled image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PulledLayer {
    /// As the image names it.
    pub blob: Blob,
    /// Where it is; `None` if the job says that it is there already.
    pub stored: Option<Stored>,
}

/// A layer in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Position of the file in the job's list.
    pub file: usize,
    /// Root of the dm-verity tree.
    pub root_hash: RootHash,
    /// Blocks of 4 KiB of the ext4 image; the verity superblock is the next one.
    pub data_blocks: u64,
    /// Blocks of 4 KiB of image, superblock and tree.
    pub total_blocks: u64,
}

/// The line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Pulled(Vec<LayerLine>),
    Refused(String),
    Unable(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerLine {
    digest: String,
    diff_id: String,
    stored: Option<StoredLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLine {
    file: usize,
    root_hash: String,
    data_blocks: u64,
    total_blocks: u64,
}

impl Report {
    /// The line, with its end.
    pub fn to_line(&self) -> String {
        let line = match self {
            Self::Pulled(layers) => Line::Pulled(layers.iter().map(LayerLine::from).collect()),
            Self::Refused(text) => Line::Refused(text.clone()),
            Self::Unable(text) => Line::Unable(text.clone()),
        };
        // Numbers and texts only, which always have a text.
        let mut line = serde_json::to_string(&line).unwrap_or_default();
        line.push('\n');
        line
    }

    /// The report in all that a puller said: its last line. `None` when that is none.
    pub fn in_output(output: &[u8]) -> Option<Self> {
        let last = output.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
        Some(match serde_json::from_slice(last).ok()? {
            Line::Pulled(layers) => Self::Pulled(layers.iter().map(LayerLine::read).collect::<Option<_>>()?),
            Line::Refused(text) => Self::Refused(text),
            Line::Unable(text) => Self::Unable(text),
        })
    }
}

impl From<&PulledLayer> for LayerLine {
    fn from(layer: &PulledLayer) -> Self {
        let stored = layer.stored.map(|stored| StoredLine {
            file: stored.file,
            root_hash: stored.root_hash.to_string(),
            data_blocks: stored.data_blocks,
            total_blocks: stored.total_blocks,
        });
        Self {
            digest: layer.blob.digest.to_string(),
            diff_id: layer.blob.diff_id.to_string(),
            stored,
        }
    }
}

impl LayerLine {
    fn read(&self) -> Option<PulledLayer> {
        let stored = match &self.stored {
            None => None,
            Some(stored) => Some(Stored {
                file: stored.file,
                root_hash: stored.root_hash.parse().ok()?,
                data_blocks: stored.data_blocks,
                total_blocks: stored.total_blocks,
            }),
        };
        Some(PulledLayer {
            blob: Blob {
                digest: self.digest.parse().ok()?,
                diff_id: self.diff_id.parse().ok()?,
            },
            stored,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::LAYERS_MAX;
    use oci::Digest;

    fn layer() -> PulledLayer {
        PulledLayer {
            blob: Blob {
                digest: Digest::of(b"blob"),
                diff_id: Digest::of(b"tar"),
            },
            stored: Some(Stored {
                file: LAYERS_MAX - 1,
                root_hash: "ab".repeat(32).parse().unwrap(),
                data_blocks: u64::MAX,
                total_blocks: u64::MAX,
            }),
        }
    }

    #[test]
    fn the_last_line_is_the_report() {
        let known = PulledLayer { stored: None, ..layer() };
        for report in [
            Report::Pulled(vec![layer(); LAYERS_MAX]),
            Report::Pulled(vec![known]),
            Report::Refused("layer \"a\nb\": no".into()),
            Report::Unable(String::new()),
        ] {
            let said = format!("a warning\n{}", report.to_line());
            assert_eq!(said.lines().count(), 2);
            assert!(said.len() < REPORT_MAX_BYTES);
            assert_eq!(Report::in_output(said.as_bytes()), Some(report));
        }
    }

    #[test]
    fn anything_else_is_no_report() {
        let whole = Report::Pulled(vec![layer()]).to_line();
        let short = whole.replace(&"ab".repeat(32), "ab");
        let more = whole.replace("\"stored\"", "\"more\":1,\"stored\"");
        for said in ["", "\n", "text\n", "{}\n", r#"{"refused":"cut"}"#, &short, &more, "\u{0}\n"] {
            assert_eq!(Report::in_output(said.as_bytes()), None, "{said:?}");
        }
    }
}
