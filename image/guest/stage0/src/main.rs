//! stage0's program: what the first vCPU executes first in a guest with measured boot. Without operating system, interrupts or heap;
//! any fault ends the guest, as there is no interrupt table.
#![no_std]
#![no_main]

mod program {
    pub mod entry;
    pub mod hardware;
    pub mod sha_ni;
    pub mod terminate;
}

use boot_manifest::{
    Refusal,
    launch_area::{BOOT_PAGE, CPUID_PAGE, ENCRYPTION_BIT, PAGE_BYTES},
};
use program::{
    entry::start_kernel,
    hardware::{Hardware, launched_page},
    sha_ni,
    terminate::{terminate_encrypted, terminate_plain},
};
use stage0::{Cpu, prepare};

/// Called by the entry with the page tables' address. `BOOT_PAGE` is where RSI points to.
#[unsafe(no_mangle)]
extern "C" fn stage0_main(page_tables: u64) -> ! {
    let encrypted = page_tables >> ENCRYPTION_BIT & 1 == 1;
    let cpu = Cpu::of_page(launched_page(CPUID_PAGE));
    if cpu.sha {
        sha_ni::enable();
    }
    let boot_page: &[u8; PAGE_BYTES] = launched_page(BOOT_PAGE);
    match prepare(&mut Hardware::new(cpu), boot_page, encrypted) {
        Ok(start) => start_kernel(start),
        Err(refusal) => terminate(refusal, encrypted),
    }
}

fn terminate(refusal: Refusal, encrypted: bool) -> ! {
    if encrypted {
        terminate_encrypted(refusal)
    } else {
        terminate_plain(refusal)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    terminate(Refusal::Internal, program::entry::page_tables() >> ENCRYPTION_BIT & 1 == 1)
}
