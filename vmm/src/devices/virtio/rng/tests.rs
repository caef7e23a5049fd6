//! Tests of the entropy device.
