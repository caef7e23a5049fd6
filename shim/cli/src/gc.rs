//! `casemate gc`: removes converted layers that were not used for long, or that take too much room.

use crate::{config::directories, output::print};
use anyhow::{Context, Result};
use clap::Args;
use layer_cache::{Cache, Collected, Entry, Keep};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// What is kept.
#[derive(Args)]
pub struct Gc {
    /// Remove layers that were not used for this long, such as 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    unused: Option<Duration>,
    /// Then remove the longest unused until the rest takes at most this much, such as 500M or 20G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Check every layer first, and remove those that were damaged on the disk
    #[arg(long)]
    verify: bool,
    /// Remove nothing, and say what would be
    #[arg(long, conflicts_with = "verify")]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The cache (default: the node's configuration)
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    damaged: &'a [String],
    removed: Vec<Line>,
    kept: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    /// Digest of the layer's blob, as in the image's manifest.
    blob: String,
    bytes: u64,
    unused_seconds: u64,
}

impl Line {
    fn of(entry: &Entry, now: SystemTime) -> Self {
        Self {
            blob: entry.blob.to_string(),
            bytes: entry.bytes,
            unused_seconds: now.duration_since(entry.last_used).unwrap_or_default().as_secs(),
        }
    }
}

/// Collects once. The last line is the summary.
pub fn run(gc: &Gc) -> Result<()> {
    let dir = match &gc.cache_dir {
        Some(dir) => dir.clone(),
        None => directories()?.cache_dir,
    };
    let cache = Cache::open(&dir).with_context(|| format!("cannot open the cache in {}", dir.display()))?;
    let damaged = if gc.verify {
        cache.verify().context("cannot check the layers")?
    } else {
        Vec::new()
    };
    let damaged: Vec<_> = damaged.iter().map(ToString::to_string).collect();
    let keep = Keep {
        used_within: gc.unused,
        bytes: gc.max_size,
    };
    let now = SystemTime::now();
    let collected = cache.collect(keep, now, gc.dry_run).context("cannot collect layers")?;
    let lines = |entries: &[Entry]| entries.iter().map(|entry| Line::of(entry, now)).collect::<Vec<_>>();
    let report = Report {
        damaged: &damaged,
        removed: lines(&collected.removed),
        kept: lines(&collected.kept),
    };
    if gc.json {
        return print(&serde_json::to_string(&report)?);
    }
    let word = if gc.dry_run { "would remove" } else { "removed" };
    for blob in &damaged {
        print(&format!("removed {blob}: damaged"))?;
    }
    for line in &report.removed {
        print(&format!(
            "{word} {}: {} KiB, unused for {} s",
            line.blob,
            line.bytes / 1024,
            line.unused_seconds
        ))?;
    }
    print(&summary(word, &collected))?;
    Ok(())
}

fn summary(word: &str, collected: &Collected) -> String {
    let mib = |entries: &[Entry]| entries.iter().map(|entry| entry.bytes).sum::<u64>() >> 20;
    let Collected { removed, kept } = collected;
    format!(
        "{word} {} layers ({} MiB), kept {} ({} MiB)",
        removed.len(),
        mib(removed),
        kept.len(),
        mib(kept)
    )
}

/// A number and a unit.
fn with_unit(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let (digits, factor) = match units.iter().find(|(unit, _)| text.ends_with(*unit)) {
        Some((_, factor)) => (&text[..text.len() - 1], *factor),
        None => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads a time such as `12h` or `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let seconds = with_unit(text, &[('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600)]);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "not a number with s, m, h or d".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = with_unit(text, &[('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)]);
    bytes.ok_or_else(|| "not a number with K, M, G or T".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_a_unit() {
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(size("20G"), Ok(20 << 30));
        for bad in ["", "30", "d", "-1d", "1 d", "1w", "99999999999999999999d", "999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(size("20").is_err() && size("99999999999T").is_err());
    }
}
