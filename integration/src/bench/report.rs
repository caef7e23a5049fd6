//! The results: a table for the terminal, and the same fields in `bench.json`.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Format version of `bench.json`.
const VERSION: u32 = 1;
const NAME_COLUMNS: usize = 34;

/// One measurement and the one it is compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Title of its benchmark.
    pub benchmark: String,
    /// What was measured.
    pub name: String,
    /// Casemate's value; absent if the benchmark failed.
    pub value: Option<f64>,
    /// Unit of both values.
    pub unit: String,
    /// The program it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Casemate's value divided by the other program's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The same ratio under its own name if that program is QEMU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_qemu: Option<f64>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Further values of the same run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The value of another program in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Name of the program.
    pub name: String,
    /// Its value.
    pub value: f64,
}

impl Row {
    /// A row with a value.
    pub fn of(name: &str, value: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value),
            unit: unit.to_owned(),
            ..Self::default()
        }
    }

    /// A row of a benchmark that failed.
    pub fn failed(name: &str, error: &anyhow::Error) -> Self {
        Self {
            name: name.to_owned(),
            error: Some(format!("{error:#}")),
            ..Self::default()
        }
    }

    /// Adds the other program's value.
    pub fn compared_with(mut self, name: &str, value: f64) -> Self {
        self.ratio = self.value.filter(|_| value > 0.0).map(|ours| ours / value);
        self.ratio_to_qemu = self.ratio.filter(|_| name.starts_with("qemu"));
        self.peer = Some(Peer {
            name: name.to_owned(),
            value,
        });
        self
    }

    /// Adds the target.
    pub fn target(mut self, text: &str) -> Self {
        self.target = Some(text.to_owned());
        self
    }

    /// Adds a further value.
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
    /// The machine on which it ran.
    machine: String,
    /// Wall time in seconds.
    seconds: f64,
    rows: Vec<Row>,
}

impl Report {
    /// A run with `rows`, measured on `machine`.
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

    /// The text of `bench.json`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        text.push(b'\n');
        Ok(text)
    }

    /// The table.
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

/// The median; of an even number of values the mean of the two in the middle. `None` if there are none.
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
    fn a_ratio_is_casemate_by_the_other_program() {
        let row = Row::of("casemate-vmm-bare", 0.15, "s").compared_with("qemu-microvm", 0.3);
        assert_eq!((row.ratio, row.ratio_to_qemu), (Some(0.5), Some(0.5)));
        let row = Row::of("ctr run", 3.0, "s").compared_with("runc", 2.0);
        assert_eq!((row.ratio, row.ratio_to_qemu), (Some(1.5), None));
        assert_eq!(Row::of("x", 3.0, "s").compared_with("runc", 0.0).ratio, None);
    }

    #[test]
    fn the_median() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_failure_is_a_row_with_its_reason() {
        let text = line(&Row::failed("boot", &anyhow::anyhow!("no sign of life")));
        assert!(text.contains("boot") && text.contains("no sign of life"), "{text}");
        let text = line(
            &Row::of("boot", 0.1234, "s")
                .compared_with("qemu", 0.25)
                .target("≤ 0.46")
                .detail("exits", 784.0),
        );
        for wanted in ["0.123 s", "qemu: 0.250", "0.49 ×", "(≤ 0.46)", "exits 784"] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
    }
}
