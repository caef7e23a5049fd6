//! The first and the last instructions: a stack, and a GDT as Linux wants it (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use core::arch::{asm, global_asm};
use stage0::Start;

global_asm!(
    r#"
    .pushsection .text.entry, "ax"
    .globl _start, start_kernel
    _start:
        lea rsp, [rip + stack_top]
        cld
        mov rdi, cr3
        call stage0_main
        ud2
    start_kernel:               /* rdi: entry, rsi: zero page */
        lgdt [rip + gdt_pointer]
        mov eax, 0x18
        mov ds, eax
        mov es, eax
        mov ss, eax
        push 0x10
        push rdi
        retfq
    .popsection
    .pushsection .rodata.gdt, "a"
    .balign 8
    gdt:
        .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
    gdt_pointer:
        .short 31
        .quad gdt
    .popsection
"#
);

/// Enters the kernel.
pub fn start_kernel(start: Start) -> ! {
    // SAFETY: the verified kernel is at `entry`, its boot parameters are written, and nothing of stage0 is used any more.
    unsafe {
        asm!("jmp start_kernel", in("rdi") start.entry, in("rsi") start.boot_params, options(noreturn));
    }
}

/// CR3: reading it is not intercepted.
pub fn page_tables() -> u64 {
    let page_tables;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) page_tables, options(nomem, nostack, preserves_flags)) };
    page_tables
}
