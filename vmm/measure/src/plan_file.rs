//! A launch plan as a file, for other tools: a JSON object on each line, in the order of measurement.
//!
//! `{"type":"normal","gpa":"0x200000","bytes":"…"}`; types are `normal`, `vmsa`, `zero`, `unmeasured`, `secrets` and `cpuid`.
//! `bytes` (8192 hex digits) is there where the contents are measured.

use serde::Serialize;
use std::io::{self, Write};
use vm_spec::{Page, PageKind};

#[derive(Serialize)]
struct Line {
    #[serde(rename = "type")]
    kind: &'static str,
    gpa: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

/// Writes the pages of a plan.
pub fn write_plan(pages: &[Page], mut output: impl Write) -> io::Result<()> {
    for page in pages {
        let kind = match page.kind {
            PageKind::Normal => "normal",
            PageKind::Vmsa => "vmsa",
            PageKind::Zero => "zero",
            PageKind::Unmeasured => "unmeasured",
            PageKind::Secrets => "secrets",
            PageKind::Cpuid => "cpuid",
        };
        let line = Line {
            kind,
            gpa: format!("{:#x}", page.gpa),
            bytes: page.kind.measures_contents().then(|| hex::encode(&page.bytes[..])),
        };
        serde_json::to_writer(&mut output, &line)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_line() {
        let page = |kind, gpa| Page {
            gpa,
            kind,
            bytes: Box::new([0xab; 4096]),
        };
        let mut file = Vec::new();
        write_plan(&[page(PageKind::Normal, 0x20_0000), page(PageKind::Secrets, 0x1000)], &mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let normal = format!(r#"{{"type":"normal","gpa":"0x200000","bytes":"{}"}}"#, "ab".repeat(4096));
        assert_eq!(lines, [normal.as_str(), r#"{"type":"secrets","gpa":"0x1000"}"#]);
    }
}
