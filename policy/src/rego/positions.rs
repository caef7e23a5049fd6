//! Changes of a text, and the way back from a place in the changed text to the original one.

use std::ops::Range;

/// A range of the text and what replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
}

/// The original text and the changes made to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    original: String,
    edits: Vec<Edit>,
}

impl Changes {
    /// Changes of `original`. Of edits that overlap the one that begins first counts; lines keep their numbers. A word that replaces
    /// a mark does not join the word before the mark (`if[1, 2]`).
    pub(crate) fn new(original: &str, mut edits: Vec<Edit>) -> Self {
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let mut end = 0;
        edits.retain(|edit| {
            let keeps = edit.range.start >= end && edit.range.end <= original.len();
            if keeps {
                end = edit.range.end;
            }
            keeps
        });
        let mut end = None;
        for edit in &mut edits {
            let before = original.get(..edit.range.start).unwrap_or("");
            if end != Some(edit.range.start) && before.ends_with(is_of_word) && edit.text.starts_with(is_of_word) {
                edit.text.insert(0, ' ');
            }
            end = Some(edit.range.end);
            let lines = |text: &str| text.matches('\n').count();
            let before = original.get(edit.range.clone()).map_or(0, lines);
            let missing = before.saturating_sub(lines(&edit.text));
            edit.text.extend(std::iter::repeat_n('\n', missing));
        }
        Self {
            original: original.to_owned(),
            edits,
        }
    }

    /// The changed text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.original.len());
        let mut copied = 0;
        for edit in &self.edits {
            text.push_str(self.original.get(copied..edit.range.start).unwrap_or(""));
            text.push_str(&edit.text);
            copied = edit.range.end;
        }
        text.push_str(self.original.get(copied..).unwrap_or(""));
        text
    }

    /// Whether an offset of the changed text is the beginning of a replacement.
    pub(crate) fn is_replaced(&self, offset: usize) -> bool {
        let original = self.original_offset(offset);
        self.edits.binary_search_by_key(&original, |edit| edit.range.start).is_ok()
    }

    /// The place in the original of an offset in the changed text; for a place in a replacement, its beginning.
    fn original_offset(&self, offset: usize) -> usize {
        let mut shift: isize = 0;
        for edit in &self.edits {
            let start = edit.range.start.saturating_add_signed(shift);
            if offset < start {
                break;
            }
            if offset < start + edit.text.len() {
                return edit.range.start;
            }
            shift += edit.text.len() as isize - edit.range.len() as isize;
        }
        offset.saturating_add_signed(-shift)
    }

    /// An error text of the interpreter about `file`, with places and lines of the original.
    ///
    /// The interpreter writes `--> FILE:LINE:COLUMN`, the line's text, and a caret under the column.
    pub(crate) fn restore(&self, message: &str, file: &str) -> String {
        if self.edits.is_empty() {
            return message.to_owned();
        }
        let changed = self.text();
        let mark = format!("--> {file}:");
        let mut lines = Vec::new();
        let mut place = None;
        for line in message.split('\n') {
            let found = line.strip_prefix(&mark).and_then(|rest| {
                let (line, column) = rest.split_once(':')?;
                Some((line.parse::<usize>().ok()?, column.parse::<usize>().ok()?))
            });
            if let Some((line, column)) = found {
                let offset = offset_of(&changed, line, column);
                let (line, column) = line_and_column(&self.original, self.original_offset(offset));
                place = Some((line, column));
                lines.push(format!("{mark}{line}:{column}"));
                continue;
            }
            let (margin, rest) = line.split_once('|').unwrap_or((line, ""));
            match place {
                Some((number, _)) if margin.trim() == number.to_string() && !rest.is_empty() => {
                    let original = self.original.lines().nth(number - 1).unwrap_or("");
                    lines.push(format!("{margin}| {original}"));
                }
                Some((_, column)) if margin.trim().is_empty() && rest.trim() == "^" => {
                    lines.push(format!("{margin}| {:>column$}", "^"));
                    place = None;
                }
                _ => lines.push(line.to_owned()),
            }
        }
        lines.join("\n")
    }
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Line and column, both from 1 and the column in characters, of a byte offset.
pub(crate) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or("");
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The byte offset of a line and a column as the interpreter counts it: a tab is four columns.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = match line {
        0 | 1 => 0,
        _ => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(at, _)| at + 1),
    };
    let mut columns = 1;
    for (at, character) in text.get(start..).unwrap_or("").char_indices() {
        if columns >= column || character == '\n' {
            return start + at;
        }
        columns += if character == '\t' { 4 } else { 1 };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(original: &str, edits: &[(&str, &str)]) -> Changes {
        let edit = |(from, to): &(&str, &str)| {
            let start = original.find(from).unwrap();
            Edit {
                range: start..start + from.len(),
                text: (*to).to_owned(),
            }
        };
        Changes::new(original, edits.iter().map(edit).collect())
    }

    #[test]
    fn lines_keep_their_numbers_and_places_lead_back() {
        let changed = changes("one [\n1,\n] two\nthree", &[("[\n1,\n]", "list"), ("one", "eleven")]);
        assert_eq!(changed.text(), "eleven list\n\n two\nthree");
        for (offset, original) in [(0, 0), (3, 0), (6, 3), (7, 4), (10, 4), (14, 11), (18, 15)] {
            assert_eq!(changed.original_offset(offset), original, "{offset}");
        }
    }

    #[test]
    fn messages_of_the_interpreter_show_the_original() {
        let changed = changes("a\n\tx := .5 + y\n", &[(".5", "0.5")]);
        let message = "\n--> p.rego:2:16\n  |\n2 | \tx := 0.5 + y\n  |                ^\nerror: no y";
        let restored = changed.restore(message, "p.rego");
        assert_eq!(restored, "\n--> p.rego:2:12\n  |\n2 | \tx := .5 + y\n  |            ^\nerror: no y");
        assert_eq!(changed.restore(message, "other.rego"), message);
    }

    #[test]
    fn overlapping_edits_are_made_once() {
        let changed = changes("abcd", &[("abc", "1"), ("bcd", "2")]);
        assert_eq!(changed.text(), "1d");
    }
}
