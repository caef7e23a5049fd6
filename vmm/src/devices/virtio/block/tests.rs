//! Tests of the block device over real rings.
