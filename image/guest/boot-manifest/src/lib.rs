//! What the VMM passes to the guest at boot, from the boot manifest to the pages that stage0 reads: one layout for writer and reader.
//!
//! Boot manifest and host page travel as Linux `setup_data` nodes (boot protocol 2.09, `struct setup_data` in
//! `arch/x86/include/uapi/asm/setup_data.h`), which Linux reserves and exposes under
//! `/sys/kernel/boot_params/setup_data/N/{type,data}`. The manifest is measured and names
//! the source of host data; the host page is not measured and is used in mode `plain` only.
//!
//! A guest that begins with stage0 finds the manifest in its boot page ([`launch_area`]), which is such a node as well.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod boot_page;
pub mod boot_params;
pub mod cpuid_page;
mod host_page;
pub mod launch_area;
mod load_map;
mod manifest;
pub mod ram;
mod refusal;
mod staging;

pub use boot_page::{BootPage, CmdlineError};
pub use host_page::{HOST_PAGE_BYTES, HostPage};
pub use load_map::{KERNEL_HEADER_BYTES, KERNEL_START, LOAD_MAP_BYTES, LOW_RAM_MAX, LoadMap, LoadMapError, SEGMENTS_MAX, Segment};
pub use manifest::{MANIFEST_BYTES, Manifest, Mode, ReadError};
pub use refusal::{REFUSAL_CODE_SET, REFUSAL_PORT, Refusal};
pub use staging::{STAGED_KERNEL, StagingPage, staged_initrd, staging_end};

/// `setup_data.type` of the boot manifest ("CM", 1). Outside the range Linux uses; bit 31 (indirect) clear.
pub const SETUP_DATA_MANIFEST: u32 = 0x0043_4d01;
/// `setup_data.type` of the host page ("CM", 2).
pub const SETUP_DATA_HOST_PAGE: u32 = 0x0043_4d02;
