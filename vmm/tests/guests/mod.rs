//! Guests of a few instructions each, so that they also run on a KVM that emulates every instruction.
//!
//! Each is entered at 1 MiB by the 64-bit boot protocol, with the first GiB identity-mapped. Scratch addresses:
//! 0x1000 flags, 0x2000 real-mode code, 0x3000 a page directory, 0x4000 an IDT, 0x5000 its descriptor, stack below 0x80000.
#![allow(dead_code, reason = "each test program uses its part")]

use std::arch::{asm, global_asm};

global_asm!(
    r#"
    .macro put char
        mov dx, 0x3f8
        mov al, \char
        out dx, al
    .endm
    .macro write_port port, value
        mov dx, \port
        mov al, \value
        out dx, al
    .endm
    .macro forever
        9: hlt
        jmp 9b
    .endm
    .macro power_off
        write_port 0x600, 0x34
        forever
    .endm
    /* 0xd0000000 (virtio slots) and 0xfec00000 (I/O APIC), 2 MiB each */
    .macro map_devices
        mov dword ptr [0xa018], 0x3003
        mov dword ptr [0x3000 + 128 * 8], 0xd0000083
        mov dword ptr [0x3000 + 502 * 8], 0xfec00083
    .endm
    .macro write_msr index, high, low
        mov ecx, \index
        mov edx, \high
        mov eax, \low
        wrmsr
    .endm
    .macro enable_x2apic
        mov ecx, 0x1b
        rdmsr
        or eax, 0xc00
        wrmsr
    .endm
    .macro print_eax
        mov dx, 0x3f8
        mov ecx, 4
        8: out dx, al
        shr eax, 8
        dec ecx
        jnz 8b
    .endm

    /* command line and initrd */
    .macro print_files
        mov dx, 0x3f8
        mov ebx, [rsi + 0x228]
        1: mov al, [rbx]
        inc rbx
        out dx, al
        test al, al
        jnz 1b
        mov ebx, [rsi + 0x218]
        mov ecx, [rsi + 0x21c]
        2: mov al, [rbx]
        inc rbx
        out dx, al
        dec ecx
        jnz 2b
    .endm

    .pushsection .rodata.guests, "a"

    .globl guest_hello, guest_hello_end
    guest_hello:
        put 'h'
        put 'i'
        put 10
        power_off
    guest_hello_end:

    .globl guest_reset, guest_reset_end
    guest_reset:
        write_port 0x602, 1
        forever
    guest_reset_end:

    .globl guest_keyboard_reset, guest_keyboard_reset_end
    guest_keyboard_reset:
        in al, 0x64
        test al, 2
        jnz guest_keyboard_reset
        write_port 0x64, 0xfe
        forever
    guest_keyboard_reset_end:

    .globl guest_triple_fault, guest_triple_fault_end
    guest_triple_fault:
        ud2
    guest_triple_fault_end:

    /* Jumps to device registers, from which KVM cannot execute. */
    .globl guest_jumps_to_mmio, guest_jumps_to_mmio_end
    guest_jumps_to_mmio:
        map_devices
        mov eax, 0xd0000000
        jmp rax
    guest_jumps_to_mmio_end:

    /* Prints command line and initrd; checks the RSDP and the setup_data list. */
    .globl guest_boot_params, guest_boot_params_end
    guest_boot_params:
        cmp dword ptr [rsi + 0x202], 0x53726448
        jne 7f
        mov rbx, [rsi + 0x70]
        cmp dword ptr [rbx], 0x20445352
        jne 7f
        mov rbx, [rsi + 0x250]
        cmp dword ptr [rbx + 8], 0x434d01
        jne 7f
        mov rbx, [rbx]
        cmp dword ptr [rbx + 8], 0x434d02
        jne 7f
        print_files
        power_off
        7: ud2
    guest_boot_params_end:

    /* The same under stage0: the host page's node, if there is one, comes before the manifest's, which is the last. */
    .globl guest_verified, guest_verified_end
    guest_verified:
        cmp dword ptr [rsi + 0x202], 0x53726448
        jne 7f
        mov rbx, [rsi + 0x70]
        cmp dword ptr [rbx], 0x20445352
        jne 7f
        mov rbx, [rsi + 0x250]
        cmp dword ptr [rbx + 8], 0x434d02
        jne 3f
        mov rbx, [rbx]
        3: cmp dword ptr [rbx + 8], 0x434d01
        jne 7f
        cmp qword ptr [rbx], 0
        jne 7f
        print_files
        power_off
        7: ud2
    guest_verified_end:

    /* Prints magic, version and device id ('0' added) of every slot, and four bytes of an address without device. */
    .globl guest_slots, guest_slots_end
    guest_slots:
        map_devices
        mov ebx, 0xd0000000
        1: mov eax, [rbx]
        print_eax
        mov eax, [rbx + 4]
        add al, '0'
        out dx, al
        mov eax, [rbx + 8]
        add al, '0'
        out dx, al
        add ebx, 0x1000
        cmp ebx, 0xd0008000
        jne 1b
        mov eax, [rbx]
        print_eax
        power_off
    guest_slots_end:

    /* Notifies queue 0 of slot 3 a hundred times, and a queue that does not exist once. */
    .globl guest_notify, guest_notify_end
    guest_notify:
        map_devices
        mov ebx, 0xd0003050
        mov ecx, 100
        1: mov dword ptr [rbx], 0
        dec ecx
        jnz 1b
        mov dword ptr [rbx], 77
        put 'd'
        put 10
        forever
    guest_notify_end:

    /* Starts vCPU 1 by INIT and SIPI. */
    .globl guest_smp, guest_smp_end
    guest_smp:
        lea rsi, [rip + 5f]
        mov edi, 0x2000
        mov ecx, 32
        rep movsb
        enable_x2apic
        write_msr 0x830, 1, 0x4500
        write_msr 0x830, 1, 0x4602
        3: pause
        cmp byte ptr [0x1000], 1
        jne 3b
        put 'B'
        put 10
        power_off
        .code16
        5: mov dx, 0x3f8
        mov al, 'A'
        out dx, al
        mov byte ptr [0x1000], 1
        4: hlt
        jmp 4b
        .code64
        .zero 32
    guest_smp_end:

    /* Starts vCPU 1 in real mode at the page of the reset vector. */
    .globl guest_real_mode_restart, guest_real_mode_restart_end
    guest_real_mode_restart:
        enable_x2apic
        write_msr 0x830, 1, 0x4500
        write_msr 0x830, 1, 0x46ff
        forever
    guest_real_mode_restart_end:

    /* Takes the serial port's interrupt through I/O APIC pin 4, vector 0x40. */
    .globl guest_interrupt, guest_interrupt_end
    guest_interrupt:
        map_devices
        mov esp, 0x80000
        lea rax, [rip + 5f]
        mov word ptr [0x4400], ax
        mov word ptr [0x4402], 0x10
        mov word ptr [0x4404], 0x8e00
        shr rax, 16
        mov word ptr [0x4406], ax
        shr rax, 16
        mov dword ptr [0x4408], eax
        mov word ptr [0x5000], 0xfff
        mov dword ptr [0x5002], 0x4000
        lidt [0x5000]
        enable_x2apic
        write_msr 0x80f, 0, 0x1ff
        mov ebx, 0xfec00000
        mov dword ptr [rbx], 0x19
        mov dword ptr [rbx + 16], 0
        mov dword ptr [rbx], 0x18
        mov dword ptr [rbx + 16], 0x40
        sti
        write_port 0x3f9, 2
        3: pause
        cmp byte ptr [0x1000], 1
        jne 3b
        put 10
        power_off
        5: mov dx, 0x3fa
        in al, dx
        and al, 0xf
        add al, '0'
        mov bl, al
        write_port 0x3f9, 0
        mov al, bl
        mov dx, 0x3f8
        out dx, al
        mov byte ptr [0x1000], 1
        write_msr 0x80b, 0, 0
        iretq
    guest_interrupt_end:

    /* Sets EFER.SVME; prints S if that succeeds, G on a general protection fault. */
    .globl guest_svme, guest_svme_end
    guest_svme:
        mov esp, 0x80000
        lea rax, [rip + 5f]
        mov word ptr [0x40d0], ax
        mov word ptr [0x40d2], 0x10
        mov word ptr [0x40d4], 0x8e00
        shr rax, 16
        mov word ptr [0x40d6], ax
        shr rax, 16
        mov dword ptr [0x40d8], eax
        mov dword ptr [0x40dc], 0
        mov word ptr [0x5000], 0xfff
        mov dword ptr [0x5002], 0x4000
        mov dword ptr [0x5006], 0
        lidt [0x5000]
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x1000
        wrmsr
        put 'S'
        power_off
        5: put 'G'
        power_off
    guest_svme_end:

    /* Exits to the VMM in an endless loop. */
    .globl guest_busy, guest_busy_end
    guest_busy:
        put 10
        1: out 0x80, al
        jmp 1b
    guest_busy_end:

    /* Prints consecutive numbers, each as eight hexadecimal digits and a new line, without end. */
    .globl guest_counts, guest_counts_end
    guest_counts:
        xor ebx, ebx
        mov dx, 0x3f8
        1: mov esi, ebx
        mov ecx, 8
        2: rol esi, 4
        mov eax, esi
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe 3f
        add al, 39
        3: out dx, al
        dec ecx
        jnz 2b
        mov al, 10
        out dx, al
        inc ebx
        jmp 1b
    guest_counts_end:

    /* Takes the steps at RDI, or at 0x20000 if that is zero, six words each: kind, RBX, RCX, RDX, RAX, result. Kinds: 1 a hypercall, 2 a load from RBX,
       3 a store of RDX to RBX, 4 back to the step at RBX while the counter in RCX lasts; any other powers off. R15 is RCX
       while a load or store is made, and zero otherwise. */
    .globl guest_steps, guest_steps_end
    guest_steps:
        test edi, edi
        jnz 7f
        mov edi, 0x20000
        7: xor r15d, r15d
        1: mov rbx, [rdi + 8]
        mov rcx, [rdi + 16]
        mov rdx, [rdi + 24]
        mov rax, [rdi + 32]
        cmp qword ptr [rdi], 1
        je 2f
        cmp qword ptr [rdi], 2
        je 3f
        cmp qword ptr [rdi], 3
        je 4f
        cmp qword ptr [rdi], 4
        je 5f
        power_off
        2: vmmcall
        jmp 6f
        3: mov r15, rcx
        mov rax, [rbx]
        xor r15d, r15d
        jmp 6f
        4: mov r15, rcx
        mov [rbx], rdx
        xor r15d, r15d
        jmp 6f
        5: dec qword ptr [rdi + 16]
        js 6f
        mov rdi, rbx
        jmp 1b
        6: mov [rdi + 40], rax
        add rdi, 48
        jmp 1b
    guest_steps_end:

    /* Halts with interrupts disabled. */
    .globl guest_halted, guest_halted_end
    guest_halted:
        put 10
        forever
    guest_halted_end:

    .popsection
    "#
);

macro_rules! guests {
    ($($name:ident),*) => {
        $(
            #[doc = concat!("The code of `guest_", stringify!($name), "`.")]
            pub fn $name() -> &'static [u8] {
                let (start, end): (*const u8, usize);
                // SAFETY: computes two addresses and touches no memory.
                unsafe {
                    asm!(
                        concat!("lea {}, [rip + guest_", stringify!($name), "]"),
                        concat!("lea {}, [rip + guest_", stringify!($name), "_end]"),
                        out(reg) start, out(reg) end, options(nomem, nostack, preserves_flags)
                    );
                }
                // SAFETY: both labels are in one read-only section of this program, the end after the start.
                unsafe { std::slice::from_raw_parts(start, end - start as usize) }
            }
        )*
    };
}

guests!(
    hello,
    reset,
    keyboard_reset,
    triple_fault,
    jumps_to_mmio,
    boot_params,
    verified,
    slots,
    notify,
    smp,
    real_mode_restart,
    interrupt,
    svme,
    busy,
    counts,
    steps,
    halted
);
