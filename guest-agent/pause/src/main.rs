//! The pause program: starts where the kernel enters it, without a library.
#![no_std]
#![no_main]

/// Called with the stack as the kernel made it, of which nothing is read; what follows needs no alignment of it.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    casemate_pause::run()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    casemate_pause::exit(1)
}
