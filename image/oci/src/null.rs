//! `null` in documents that programs in Go have written.

use serde::{Deserialize, Deserializer};

/// Go writes `null` for empty lists, maps and pointers, and reads it as their zero value.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Option::deserialize(input).map(Option::unwrap_or_default)
}
