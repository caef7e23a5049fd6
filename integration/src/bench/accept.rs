//! What stage0 does to take over a guest's memory under SEV-SNP: its own code on a machine that only counts, so the instructions that
//! the processor and the firmware spend their time on are numbers here, and their time is not.

use super::report::Row;
use anyhow::{Context, Result, bail};
use boot_manifest::{BootPage, HostPage, LoadMap, Manifest, Mode, StagingPage};
use stage0::{Machine, PageSize, Validation};
use std::ops::Range;
use std::time::Instant;

const GIB: u64 = 1 << 30;
/// Amounts of RAM whose difference is the cost of a GiB.
const RAM: [u64; 2] = [GIB, 2 * GIB];
const PAGE: usize = 4096;

/// A machine with a host page, and nothing else.
struct Counter {
    ram_bytes: u64,
    /// Whether the host has the memory in pages of 2 MiB.
    large: bool,
    validations: u64,
    evictions: u64,
}

impl Machine for Counter {
    fn validate(&mut self, _: u64, size: PageSize) -> Validation {
        self.validations += 1;
        if size == PageSize::Large && !self.large {
            return Validation::SizeMismatch;
        }
        Validation::Validated
    }

    fn evict(&mut self, _: u64) {
        self.evictions += 1;
    }

    fn read_staging(&mut self, _: u64, to: &mut [u8]) {
        let page = StagingPage {
            ram_bytes: self.ram_bytes,
            host_page: HostPage { host_data: [0; 32] },
        };
        to.copy_from_slice(&page.to_bytes()[..to.len()]);
    }

    fn load_staging(&mut self, _: u64, _: Range<u64>) {}

    fn zero(&mut self, _: Range<u64>) {}

    fn ram(&self, range: Range<u64>) -> &[u8] {
        &[0; PAGE][..(range.end - range.start) as usize]
    }

    fn write(&mut self, _: u64, _: &[u8]) {}

    fn compress(&self, _: &mut [u32; 8], _: &[[u8; 64]]) {}
}

/// Measures; returns all rows.
pub fn measure() -> Result<Vec<Row>> {
    [
        (true, "accepting memory in pages of 2 MiB"),
        (false, "— of which the host has only 4 KiB"),
    ]
    .into_iter()
    .map(|(large, name)| {
        let [one, two] = RAM.map(|ram_bytes| accepted(ram_bytes, large));
        let ((one, less), (two, more)) = (one?, two?);
        Ok(Row::of(name, (two.validations - one.validations) as f64, "PVALIDATE/GiB")
            .detail("evicted_pages", (two.evictions - one.evictions) as f64)
            .detail("loop_microseconds", (more - less) * 1e6))
    })
    .collect()
}

/// All of stage0's work with a kernel of one byte, and its seconds on this host.
fn accepted(ram_bytes: u64, large: bool) -> Result<(Counter, f64)> {
    let page = BootPage {
        manifest: Manifest {
            mode: Mode::Snp,
            kernel_sha256: [0; 32],
            initrd_sha256: [0; 32],
        },
        load: LoadMap::SMALLEST,
        cmdline: "",
    };
    let page = page.to_bytes().ok().context("no boot page")?;
    let mut counter = Counter {
        ram_bytes,
        large,
        validations: 0,
        evictions: 0,
    };
    let started = Instant::now();
    // It ends with the kernel, which this machine does not have.
    match stage0::prepare(&mut counter, &page, true) {
        Err(boot_manifest::Refusal::Kernel) => Ok((counter, started.elapsed().as_secs_f64())),
        other => bail!("stage0 ended with {:?}", other.map(|_| ())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gib_is_512_large_pages_or_each_of_its_small_ones_after_an_attempt() {
        let values: Vec<_> = measure()
            .unwrap()
            .into_iter()
            .map(|row| (row.value.unwrap(), row.details["evicted_pages"]))
            .collect();
        assert_eq!(values, [(512.0, 262_144.0), (262_656.0, 262_144.0)]);
    }
}
