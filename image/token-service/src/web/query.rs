//! Paths with queries, for links from page to page.

/// `path?name=value&…` without the empty values.
pub(super) fn link(path: &str, fields: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    let query = query.finish();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// One page of a longer list.
pub(super) struct Slice {
    /// The first entry.
    pub(super) start: usize,
    /// The start of the page before.
    pub(super) earlier: Option<usize>,
    /// The start of the page after.
    pub(super) later: Option<usize>,
}

/// Entries of one page.
pub(super) const PAGE: usize = 50;

impl Slice {
    /// The page of `count` entries that begins at the number in `text`; the first page where that is no number.
    pub(super) fn new(text: &str, count: usize) -> Self {
        let start = text.parse().unwrap_or(0).min(count);
        Self {
            start,
            earlier: (start > 0).then(|| start.saturating_sub(PAGE)),
            later: (count - start > PAGE).then(|| start + PAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_leave_out_what_is_empty() {
        assert_eq!(link("/audit", &[("actor", ""), ("subject", "a/b c")]), "/audit?subject=a%2Fb+c");
        assert_eq!(link("/audit", &[("actor", "")]), "/audit");
    }

    #[test]
    fn pages_have_neighbours_only_where_there_are_entries() {
        let page = |text, count| {
            let slice = Slice::new(text, count);
            (slice.start, slice.earlier, slice.later)
        };
        assert_eq!(page("", 0), (0, None, None));
        assert_eq!(page("x", 51), (0, None, Some(50)));
        assert_eq!(page("50", 51), (50, Some(0), None));
        assert_eq!(page("999999999999999999999", 3), (0, None, None));
        assert_eq!(page("20", 100), (20, Some(0), Some(70)));
        assert_eq!(page("400", 3), (3, Some(0), None));
    }
}
