//! A guest that interprets a script from its initrd, and a builder of such scripts: a virtio driver whose every access to
//! registers and rings is explicit.
//!
//! Offsets are those of the specification (virtio 1.2, 2.7 and 4.2.2), independent of the code under test.

use std::arch::{asm, global_asm};
use vm_spec::layout::VirtioSlot;

// Entered by the 64-bit boot protocol, with the first GiB identity-mapped. Maps 0xd0000000 (virtio slots) with a page directory
// at 0x3000, then executes records of operation, address and value.
global_asm!(
    r#"
    .pushsection .rodata.script, "a"
    .globl guest_script, guest_script_end
    guest_script:
        mov dword ptr [0xa018], 0x3003
        mov dword ptr [0x3000 + 128 * 8], 0xd0000083
        mov ebx, [rsi + 0x218]
    1:  mov eax, [rbx]
        mov ecx, [rbx + 4]
        mov edx, [rbx + 8]
        add ebx, 12
        dec eax
        jz 2f
        dec eax
        jz 3f
        dec eax
        jz 4f
        dec eax
        jz 5f
    6:  out 0x80, al
        jmp 6b
    2:  mov [rcx], edx
        jmp 1b
    3:  pause
        cmp [rcx], dx
        jne 3b
        jmp 1b
    4:  mov eax, edx
        mov edx, ecx
        out dx, al
        jmp 1b
    5:  jmp rcx
    guest_script_end:
    .popsection
    "#
);

/// The guest's code.
pub fn guest() -> &'static [u8] {
    let (start, end): (*const u8, usize);
    // SAFETY: computes two addresses and touches no memory.
    unsafe {
        asm!(
            "lea {}, [rip + guest_script]",
            "lea {}, [rip + guest_script_end]",
            out(reg) start, out(reg) end, options(nomem, nostack, preserves_flags)
        );
    }
    // SAFETY: both labels are in one read-only section of this program, the end after the start.
    unsafe { std::slice::from_raw_parts(start, end - start as usize) }
}

/// Descriptors of a queue; a script uses each once.
const QUEUE_SIZE: u32 = 64;
/// Rings and buffers of a slot: a MiB each, from 4 MiB on.
const ARENA: u32 = 0x40_0000;
/// Within a queue's part of the arena.
const DRIVER_AREA: u32 = 0x1000;
const DEVICE_AREA: u32 = 0x2000;
const BUFFERS: u32 = 0x4000;
const QUEUE_STRIDE: u32 = 0x4_0000;
/// Bytes for each buffer.
const BUFFER_BYTES: u32 = 0x400;

/// A buffer of a chain.
pub enum Part<'a> {
    /// The device reads these bytes, a multiple of four.
    Out(&'a [u8]),
    /// The device writes this many bytes.
    In(u32),
}

/// The driver's state of one queue.
pub struct Queue {
    slot: u32,
    index: u32,
    base: u32,
    descriptors: u32,
    chains: u32,
}

/// Records of operation, address and value.
#[derive(Default)]
pub struct Script(Vec<u8>);

impl Script {
    /// Contents of the initrd.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn record(&mut self, operation: u32, address: u32, value: u32) {
        for word in [operation, address, value] {
            self.0.extend(word.to_le_bytes());
        }
    }

    /// Writes 32 bits to memory or a register.
    pub fn write(&mut self, address: u32, value: u32) {
        self.record(1, address, value);
    }

    /// Waits until 16 bits of memory have this value.
    pub fn wait(&mut self, address: u32, value: u16) {
        self.record(2, address, value.into());
    }

    /// Writes a byte to a port.
    pub fn out(&mut self, port: u16, value: u8) {
        self.record(3, port.into(), value.into());
    }

    /// Jumps to an address.
    pub fn jump(&mut self, address: u32) {
        self.record(4, address, 0);
    }

    /// Exits to the VMM in an endless loop.
    pub fn storm(&mut self) {
        self.record(0, 0, 0);
    }

    /// Brings a device up with `features` of the first 32 and version 1.
    pub fn set_up(&mut self, slot: VirtioSlot, queues: u32, features: u32) -> Vec<Queue> {
        let base = slot.base() as u32;
        for (offset, value) in [(0x70, 1), (0x70, 3), (0x24, 0), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11)] {
            self.write(base + offset, value);
        }
        let queues: Vec<_> = (0..queues)
            .map(|index| Queue {
                slot: base,
                index,
                base: ARENA + (slot as u32) * 0x10_0000 + index * QUEUE_STRIDE,
                descriptors: 0,
                chains: 0,
            })
            .collect();
        for queue in &queues {
            let areas = [
                (0x80, queue.base),
                (0x90, queue.base + DRIVER_AREA),
                (0xa0, queue.base + DEVICE_AREA),
            ];
            self.write(base + 0x30, queue.index);
            self.write(base + 0x38, QUEUE_SIZE);
            areas.into_iter().for_each(|(offset, address)| self.write(base + offset, address));
            self.write(base + 0x44, 1);
        }
        self.write(base + 0x70, 15);
        queues
    }

    /// Resets a device.
    pub fn reset(&mut self, slot: VirtioSlot) {
        self.write(slot.base() as u32 + 0x70, 0);
    }

    /// Makes a chain available and notifies the device.
    pub fn submit(&mut self, queue: &mut Queue, parts: &[Part<'_>]) {
        let head = queue.descriptors;
        for (i, part) in parts.iter().enumerate() {
            let (descriptor, buffer) = (
                queue.base + 16 * queue.descriptors,
                queue.base + BUFFERS + BUFFER_BYTES * queue.descriptors,
            );
            queue.descriptors += 1;
            let next = if i + 1 < parts.len() { 1 } else { 0 };
            let (length, flags) = match part {
                Part::Out(bytes) => {
                    for (word, at) in bytes.chunks_exact(4).zip((buffer..).step_by(4)) {
                        self.write(at, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
                    }
                    (bytes.len() as u32, next)
                }
                Part::In(length) => (*length, next | 2),
            };
            for (at, value) in [(0, buffer), (8, length), (12, flags | queue.descriptors << 16)] {
                self.write(descriptor + at, value);
            }
        }
        // Ring entries have 16 bits: this also writes the next entry, which the next chain overwrites.
        self.write(queue.base + DRIVER_AREA + 4 + 2 * queue.chains, head);
        queue.chains += 1;
        // Index in the upper half; flags 0: interrupts enabled.
        self.write(queue.base + DRIVER_AREA, queue.chains << 16);
        self.write(queue.slot + 0x50, queue.index);
    }

    /// Waits until the device has returned `chains` chains in all.
    pub fn wait_used(&mut self, queue: &Queue, chains: u16) {
        self.wait(queue.base + DEVICE_AREA + 2, chains);
    }

    /// As [`Script::submit`], and waits until the chain is returned.
    pub fn exchange(&mut self, queue: &mut Queue, parts: &[Part<'_>]) {
        self.submit(queue, parts);
        self.wait_used(queue, queue.chains as u16);
    }
}

/// A block request's header.
pub fn block_header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

/// A vsock packet from the guest's port to the host's, with a megabyte of credit for the answer; one of operation 4
/// (SHUTDOWN) ends both directions.
pub fn vsock_packet(ports: (u32, u32), operation: u16, payload: &[u8]) -> Vec<u8> {
    let flags = if operation == 4 { 3 } else { 0 };
    let mut packet = [&3u64.to_le_bytes()[..], &2u64.to_le_bytes()].concat();
    for word in [
        ports.0,
        ports.1,
        payload.len() as u32,
        1 | u32::from(operation) << 16,
        flags,
        1 << 20,
        0,
    ] {
        packet.extend(word.to_le_bytes());
    }
    packet.extend(payload);
    packet
}
