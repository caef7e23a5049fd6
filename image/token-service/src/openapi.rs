//! The description of the service's HTTP interface (OpenAPI 3.1).

/// The document, as it is served.
pub(crate) const TEXT: &str = include_str!("openapi.json");
