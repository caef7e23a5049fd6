//! What a process gives up before it meets hostile bytes: descriptors, limits, namespaces, ids, capabilities, system calls.
//!
//! The programs that read what an enemy wrote (`casemate-vmm`, `casemate-converter`) take these steps in one order:
//! ```text
//! descriptors ─► limits ─► standard streams ─► privileges ─► … their own preparation … ─► seccomp filter
//! ```
#![deny(unsafe_code)]

pub mod allocator;
pub mod descriptors;
pub mod privileges;
pub mod seccomp;
