//! What was measured: rows for people on the terminal, the same fields for programs in `bench.json`.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Version of the form of `bench.json`.
const VERSION: u32 = 1;
const NAME_COLUMNS: usize = 34;

/// One thing measured, with its peer beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which benchmark it belongs to.
    pub benchmark: String,
    /// What was measured.
    pub name: String,
    /// Ours; absent where the benchmark failed.
    pub value: Option<f64>,
    /// Of both values.
    pub unit: String,
    /// What stands beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Ours divided by the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The same, where the peer is QEMU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_qemu: Option<f64>,
    /// What we aim at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Further figures of the same run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The peer's figure from the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
}

impl Row {
    /// A figure.
    pub fn of(name: &str, value: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value),
            unit: unit.to_owned(),
            ..Self::default()
        }
    }

    /// A benchmark that gave none.
    pub fn failed(name: &str, error: &anyhow::Error) -> Self {
        Self {
            name: name.to_owned(),
            error: Some(format!("{error:#}")),
            ..Self::default()
        }
    }

    /// With its peer's figure.
    pub fn beside(mut self, name: &str, value: f64) -> Self {
        self.ratio = self.value.filter(|_| value > 0.0).map(|ours| ours / value);
        self.ratio_to_qemu = self.ratio.filter(|_| name.starts_with("qemu"));
        self.peer = Some(Peer {
            name: name.to_owned(),
            value,
        });
        self
    }

    /// With what we aim at.
    pub fn target(mut self, text: &str) -> Self {
        self.target = Some(text.to_owned());
        self
    }

    /// With a further figure.
    pub fn detail(mut self, name: &str, value: f64) -> Self {
        self.details.insert(name.to_owned(), value);
        self
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    version: u32,
    /// Day of the run, UTC.
    date: String,
    /// Where it ran.
    machine: String,
    /// Seconds that all of it took, on the wall.
    seconds: f64,
    rows: Vec<Row>,
}

impl Report {
    /// Of `rows`, measured on `machine`.
    pub fn new(machine: String, seconds: f64, rows: Vec<Row>) -> Result<Self> {
        let date = crate::testbed::host::run(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        Ok(Self {
            version: VERSION,
            date: date.trim().to_owned(),
            machine,
            seconds,
            rows,
        })
    }

    /// As `bench.json`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        text.push(b'\n');
        Ok(text)
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut text = format!("\n{}, {}, {:.0} s\n", self.date, self.machine, self.seconds);
        let mut benchmark = "";
        for row in &self.rows {
            if row.benchmark != benchmark {
                benchmark = &row.benchmark;
                let _ = write!(text, "\n{benchmark}\n");
            }
            text.push_str(&line(row));
        }
        text
    }
}

fn line(row: &Row) -> String {
    let name = &row.name;
    if let Some(error) = &row.error {
        return format!("  {name:NAME_COLUMNS$} no figure: {error}\n");
    }
    let value = row.value.map(|value| format!("{} {}", figure(value), row.unit)).unwrap_or_default();
    let peer = row.peer.as_ref();
    let peer = peer
        .map(|peer| format!("{}: {}", peer.name, figure(peer.value)))
        .unwrap_or_default();
    let ratio = row.ratio.map(|ratio| format!("{ratio:.2} ×")).unwrap_or_default();
    let target = row.target.as_ref().map(|text| format!("({text})")).unwrap_or_default();
    let mut text = format!("  {name:NAME_COLUMNS$} {value:>14}  {peer:22} {ratio:>8} {target}")
        .trim_end()
        .to_owned();
    text.push('\n');
    if !row.details.is_empty() {
        let details: Vec<_> = row
            .details
            .iter()
            .map(|(name, value)| format!("{name} {}", figure(*value)))
            .collect();
        let _ = writeln!(text, "  {:NAME_COLUMNS$}   {}", "", details.join(", "));
    }
    text
}

/// Three significant digits; whole numbers as they are.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle one; of an even number the mean of the two in the middle. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_ours_by_theirs() {
        let row = Row::of("casemate-vmm-bare", 0.15, "s").beside("qemu-microvm", 0.3);
        assert_eq!((row.ratio, row.ratio_to_qemu), (Some(0.5), Some(0.5)));
        let row = Row::of("ctr run", 3.0, "s").beside("runc", 2.0);
        assert_eq!((row.ratio, row.ratio_to_qemu), (Some(1.5), None));
        assert_eq!(Row::of("x", 3.0, "s").beside("runc", 0.0).ratio, None);
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_failure_is_a_row_that_says_so() {
        let text = line(&Row::failed("boot", &anyhow::anyhow!("no sign of life")));
        assert!(text.contains("boot") && text.contains("no sign of life"), "{text}");
        let text = line(
            &Row::of("boot", 0.1234, "s")
                .beside("qemu", 0.25)
                .target("≤ 0.46")
                .detail("exits", 784.0),
        );
        for wanted in ["0.123 s", "qemu: 0.250", "0.49 ×", "(≤ 0.46)", "exits 784"] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
    }
}
