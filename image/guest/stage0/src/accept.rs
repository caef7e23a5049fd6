//! Takes over RAM under SNP: validates every page that was not launched, each exactly once.

use crate::machine::{Machine, PageSize, Validation};
use boot_manifest::{
    Refusal,
    launch_area::PAGE_BYTES,
    ram::{RAM_UNIT, Ram},
};

const SMALL: u64 = PAGE_BYTES as u64;
const LARGE: u64 = RAM_UNIT;
/// What programs of a PC scan for tables, or take for empty.
const LEGACY_END: u64 = 0x10_0000;

/// Validates all RAM outside of the launch area, and clears the first MiB: a validated page holds what the host likes.
pub fn accept(machine: &mut impl Machine, ram: Ram) -> Result<(), Refusal> {
    for range in ram.to_accept() {
        let mut at = range.start;
        while at < range.end {
            at += if at.is_multiple_of(LARGE) && range.end - at >= LARGE {
                large(machine, at)?
            } else {
                small(machine, at)?
            };
        }
    }
    machine.zero(0..LEGACY_END);
    Ok(())
}

/// 2 MiB, in small pages if the host has them so.
fn large(machine: &mut impl Machine, address: u64) -> Result<u64, Refusal> {
    let pages = (address..address + LARGE).step_by(PAGE_BYTES);
    match machine.validate(address, PageSize::Large) {
        Validation::Validated => pages.for_each(|page| machine.evict(page)),
        Validation::SizeMismatch => {
            for page in pages {
                small(machine, page)?;
            }
        }
        Validation::Unchanged => return Err(Refusal::ValidatedTwice),
        Validation::Failed => return Err(Refusal::Validation),
    }
    Ok(LARGE)
}

fn small(machine: &mut impl Machine, address: u64) -> Result<u64, Refusal> {
    match machine.validate(address, PageSize::Small) {
        Validation::Validated => machine.evict(address),
        Validation::Unchanged => return Err(Refusal::ValidatedTwice),
        Validation::SizeMismatch | Validation::Failed => return Err(Refusal::Validation),
    }
    Ok(SMALL)
}
