//! RAM of a guest that stage0 starts: below the devices at 3 GiB, and from 4 GiB on.

use crate::{
    boot_params::E820Type,
    launch_area::{LAUNCH_AREA_END, SECRETS_PAGE, STAGE0, STAGE0_ACPI, STAGING},
    load_map::LOW_RAM_MAX,
};
use core::ops::Range;

/// Least RAM.
pub const RAM_MIN_BYTES: u64 = 64 << 20;
/// Most RAM: it ends where staging begins.
pub const RAM_MAX_BYTES: u64 = STAGING - (HIGH_RAM - LOW_RAM_MAX);
/// RAM is a multiple of this, so that all of it can be validated in large pages.
pub const RAM_UNIT: u64 = 2 << 20;

/// Where RAM that does not fit below the devices goes on.
const HIGH_RAM: u64 = 4 << 30;
/// End of conventional memory, and of what a PC has in place of RAM above it.
const CONVENTIONAL_END: u64 = 0xa_0000;
const ROMS_END: u64 = 0x10_0000;

/// An amount of RAM that a guest can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram(u64);

impl Ram {
    /// `None` if it is not a multiple of 2 MiB, or out of bounds.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes.is_multiple_of(RAM_UNIT) && (RAM_MIN_BYTES..=RAM_MAX_BYTES).contains(&bytes)).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// End of RAM below the devices.
    pub fn low_end(self) -> u64 {
        self.0.min(LOW_RAM_MAX)
    }

    /// RAM above the devices; empty without any.
    pub fn high(self) -> Range<u64> {
        HIGH_RAM..HIGH_RAM + (self.0 - self.low_end())
    }

    /// Pages that are not launched: with the launch area they are all RAM, each once.
    pub fn to_accept(self) -> [Range<u64>; 3] {
        [0..STAGE0, LAUNCH_AREA_END..self.low_end(), self.high()]
    }

    /// The E820 map. Linux keeps the boot page because its node is in the `setup_data` list, and stage0's own pages are free once the
    /// kernel runs. ACPI tables are named as such, or an encrypted guest would read them as shared memory.
    pub fn e820(self) -> impl Iterator<Item = (Range<u64>, E820Type)> {
        let high = self.high();
        [
            (0..CONVENTIONAL_END, E820Type::Ram),
            (CONVENTIONAL_END..ROMS_END, E820Type::Reserved),
            (ROMS_END..STAGE0_ACPI, E820Type::Ram),
            (STAGE0_ACPI..SECRETS_PAGE, E820Type::Acpi),
            (SECRETS_PAGE..LAUNCH_AREA_END, E820Type::Reserved),
            (LAUNCH_AREA_END..self.low_end(), E820Type::Ram),
            (high, E820Type::Ram),
        ]
        .into_iter()
        .filter(|(range, _)| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_multiple_of_2_mib_within_bounds() {
        for good in [64 << 20, 3 << 30, (3 << 30) + (2 << 20), RAM_MAX_BYTES] {
            assert_eq!(Ram::new(good).map(Ram::bytes), Some(good));
        }
        for bad in [
            0,
            1 << 20,
            62 << 20,
            (64 << 20) + 1,
            (64 << 20) + 4096,
            65 << 20,
            RAM_MAX_BYTES + RAM_UNIT,
            u64::MAX,
        ] {
            assert_eq!(Ram::new(bad), None, "{bad:#x}");
        }
        assert_eq!(Ram::new(RAM_MAX_BYTES).unwrap().high().end, STAGING);
    }

    /// Every amount that a guest can have.
    #[test]
    fn what_is_accepted_and_the_map_cover_all_ram_once() {
        for units in RAM_MIN_BYTES / RAM_UNIT..=RAM_MAX_BYTES / RAM_UNIT {
            let ram = Ram::new(units * RAM_UNIT).unwrap();
            let accepted = ram.to_accept();
            let launched = STAGE0..LAUNCH_AREA_END;
            let all = [&accepted[0], &launched, &accepted[1], &accepted[2]];
            assert_eq!(all.iter().map(|range| range.end - range.start).sum::<u64>(), ram.bytes());
            assert_eq!(ram.e820().map(|(range, _)| range.end - range.start).sum::<u64>(), ram.bytes());
            let mut end = 0;
            for range in all {
                assert!(range.start >= end && range.end <= STAGING && (range.end <= LOW_RAM_MAX || range.start >= HIGH_RAM));
                end = range.end;
            }
            let mut end = 0;
            for (range, kind) in ram.e820() {
                assert!(range.start >= end);
                end = range.end;
                let kept = range.end > STAGE0_ACPI && range.start < LAUNCH_AREA_END;
                assert_eq!(kind == E820Type::Ram, !kept && range.start != CONVENTIONAL_END);
            }
        }
    }
}
