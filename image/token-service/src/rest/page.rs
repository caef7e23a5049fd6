//! Pages of long lists (`page`, `per_page`), so that no answer grows without bound.

use super::failure::invalid;
use crate::answer::{Stop, json};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Value;

/// Most entries of a page, and those of one that nobody asked for.
pub(super) struct Sizes {
    pub(super) most: usize,
    pub(super) usual: usize,
}

/// Lists of projects and members.
pub(super) const SHORT: Sizes = Sizes { most: 100, usual: 20 };
/// Lists of rules, which clients of the peer expect whole.
pub(super) const LONG: Sizes = Sizes { most: 1000, usual: 1000 };

/// The part of a list that is wanted.
pub(super) struct Page {
    number: usize,
    size: usize,
    /// The other parameters.
    pub(super) search: Option<String>,
}

impl Page {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 for a number that is none.
    pub(super) fn read(query: Option<&str>, sizes: &Sizes) -> Result<Self, Stop> {
        let mut page = Self {
            number: 1,
            size: sizes.usual,
            search: None,
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let number = || value.parse::<usize>().ok().filter(|number| (1..=1 << 31).contains(number));
            match &*name {
                "page" => page.number = number().ok_or_else(|| invalid("page is invalid"))?,
                "per_page" => page.size = number().ok_or_else(|| invalid("per_page is invalid"))?.min(sizes.most),
                "search" => page.search = Some(value.into_owned()),
                _ => {}
            }
        }
        Ok(page)
    }

    /// The answer with this part of a list, and where it stands in the whole.
    pub(super) fn answer<T>(&self, all: &[T], shown: impl Fn(&T) -> Value) -> Response {
        let start = (self.number - 1).saturating_mul(self.size).min(all.len());
        let end = start.saturating_add(self.size).min(all.len());
        let part: Vec<Value> = all[start..end].iter().map(shown).collect();
        let mut answer = json(StatusCode::OK, &part);
        let next = if end < all.len() {
            (self.number + 1).to_string()
        } else {
            String::new()
        };
        for (name, value) in [
            ("x-page", self.number.to_string()),
            ("x-per-page", self.size.to_string()),
            ("x-total", all.len().to_string()),
            ("x-total-pages", all.len().div_ceil(self.size).to_string()),
            ("x-next-page", next),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }
}
