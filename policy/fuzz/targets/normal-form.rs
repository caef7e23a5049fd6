//! A policy text: parsed as OPA does, and brought into the normal form that the interpreter gets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy::fuzz::normal_form(bytes));
