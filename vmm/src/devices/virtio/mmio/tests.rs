//! Tests of the register block through the eyes of a driver.
