//! stage0: takes over the guest's RAM, loads kernel and initramfs, and starts the kernel only if both are those that the boot page names.
//!
//! Kernel and initramfs are too large to be measured page by page, so the measured boot page carries their SHA-256. The host can
//! change the staging memory while stage0 runs: every byte of it is read once, into RAM that the host cannot change, and what is
//! hashed there is what runs. The machine is behind [`Machine`], so that all of it is tested against hostile hosts.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), forbid(unsafe_code))]

mod accept;
mod cpu;
mod load;
mod machine;
mod params;
mod sha256;

pub use cpu::Cpu;
pub use machine::{Machine, PageSize, Validation};
pub use params::Start;
pub use sha256::soft;

use boot_manifest::{
    BootPage, Mode, Refusal, StagingPage,
    launch_area::{PAGE_BYTES, STAGING},
    ram::Ram,
};

/// Prepares the guest that `boot_page` describes and returns where its kernel starts. `encrypted` says whether RAM is mapped with
/// the C-bit, which nobody can fake: the page tables in effect are measured.
pub fn prepare(machine: &mut impl Machine, boot_page: &[u8; PAGE_BYTES], encrypted: bool) -> Result<Start, Refusal> {
    let page = BootPage::from_bytes(boot_page).map_err(|_| Refusal::BootPage)?;
    if (page.manifest.mode == Mode::Snp) != encrypted {
        return Err(Refusal::Mode);
    }
    let mut staging_page = [0; PAGE_BYTES];
    machine.read_staging(STAGING, &mut staging_page);
    let host = StagingPage::from_bytes(&staging_page).map_err(|_| Refusal::StagingPage)?;
    let ram = Ram::new(host.ram_bytes).ok_or(Refusal::Ram)?;
    let initrd = load::place_initrd(&page.load, ram)?;
    if encrypted {
        accept::accept(machine, ram)?;
    }
    load::load(machine, &page, &initrd)?;
    Ok(params::write(machine, &page, ram, initrd, &host.host_page))
}

#[cfg(test)]
#[path = "program/sha_ni.rs"]
#[allow(dead_code, reason = "the program's part")]
mod sha_ni;
#[cfg(test)]
mod tests;
