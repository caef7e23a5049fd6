//! The boot manifest and the host page, which the VMM passes to the guest at boot: one layout for writer and reader.
//!
//! Both travel as Linux `setup_data` nodes (boot protocol 2.09, `struct setup_data` in
//! `arch/x86/include/uapi/asm/setup_data.h`), which Linux reserves and exposes under
//! `/sys/kernel/boot_params/setup_data/N/{type,data}`. The manifest is measured and names
//! the source of host data; the host page is not measured and is used in mode `plain` only.
//!
//! A guest that begins with stage0 finds the manifest in its boot page ([`launch_area`]), which is such a node as well.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod host_page;
pub mod launch_area;
mod manifest;

pub use host_page::{HOST_PAGE_BYTES, HostPage};
pub use manifest::{MANIFEST_BYTES, Manifest, Mode, ReadError};

/// `setup_data.type` of the boot manifest ("CM", 1). Outside the range Linux uses; bit 31 (indirect) clear.
pub const SETUP_DATA_MANIFEST: u32 = 0x0043_4d01;
/// `setup_data.type` of the host page ("CM", 2).
pub const SETUP_DATA_HOST_PAGE: u32 = 0x0043_4d02;
