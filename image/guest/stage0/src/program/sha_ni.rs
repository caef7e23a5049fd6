//! SHA-256 with the SHA instructions, in assembler: the program is compiled without SSE, so that the compiler uses none by itself.
//!
//! Register use follows Intel's "SHA Extensions" paper: xmm0 message and constants, xmm1 and xmm2 state, xmm3 to xmm6 schedule.

use core::arch::{asm, global_asm};

/// CR4.OSFXSR: SSE instructions can be executed.
const CR4_OSFXSR: u64 = 1 << 9;

#[rustfmt::skip]
static K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// The last four bytes first, in each word.
static BIG_ENDIAN: [u8; 16] = [3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12];

global_asm!(
    r#"
    .macro sha_rounds words, at
        movdqu xmm0, [rax + \at]
        paddd xmm0, \words
        sha256rnds2 xmm2, xmm1
        pshufd xmm0, xmm0, 0x0e
        sha256rnds2 xmm1, xmm2
    .endm
    .macro sha_schedule a, b, c, d
        sha256msg1 \a, \b
        movdqa xmm7, \d
        palignr xmm7, \c, 4
        paddd \a, xmm7
        sha256msg2 \a, \d
    .endm
    .macro sha_16_rounds a, b, c, d
        sha_schedule xmm3, xmm4, xmm5, xmm6
        sha_rounds xmm3, \a
        sha_schedule xmm4, xmm5, xmm6, xmm3
        sha_rounds xmm4, \b
        sha_schedule xmm5, xmm6, xmm3, xmm4
        sha_rounds xmm5, \c
        sha_schedule xmm6, xmm3, xmm4, xmm5
        sha_rounds xmm6, \d
    .endm
    .pushsection .text.sha_ni, "ax"
    .globl stage0_sha_ni
    .type stage0_sha_ni, @function
    stage0_sha_ni:              /* rdi: state, rsi: blocks, rdx: their number, not 0 */
        lea rax, [rip + {k}]
        movdqu xmm8, [rip + {big_endian}]
        movdqu xmm1, [rdi]
        movdqu xmm2, [rdi + 16]
        pshufd xmm1, xmm1, 0xb1
        pshufd xmm2, xmm2, 0x1b
        movdqa xmm7, xmm1
        palignr xmm1, xmm2, 8
        pblendw xmm2, xmm7, 0xf0
    2:  movdqa xmm9, xmm1
        movdqa xmm10, xmm2
        movdqu xmm3, [rsi]
        pshufb xmm3, xmm8
        sha_rounds xmm3, 0
        movdqu xmm4, [rsi + 16]
        pshufb xmm4, xmm8
        sha_rounds xmm4, 16
        movdqu xmm5, [rsi + 32]
        pshufb xmm5, xmm8
        sha_rounds xmm5, 32
        movdqu xmm6, [rsi + 48]
        pshufb xmm6, xmm8
        sha_rounds xmm6, 48
        sha_16_rounds 64, 80, 96, 112
        sha_16_rounds 128, 144, 160, 176
        sha_16_rounds 192, 208, 224, 240
        paddd xmm1, xmm9
        paddd xmm2, xmm10
        add rsi, 64
        dec rdx
        jnz 2b
        pshufd xmm1, xmm1, 0x1b
        pshufd xmm2, xmm2, 0xb1
        movdqa xmm7, xmm1
        pblendw xmm1, xmm2, 0xf0
        palignr xmm2, xmm7, 8
        movdqu [rdi], xmm1
        movdqu [rdi + 16], xmm2
        ret
    .size stage0_sha_ni, . - stage0_sha_ni
    .popsection
"#,
    k = sym K,
    big_endian = sym BIG_ENDIAN,
);

unsafe extern "C" {
    fn stage0_sha_ni(state: *mut [u32; 8], blocks: *const [u8; 64], count: usize);
}

/// Lets SSE instructions run, which the processor refuses after reset.
pub fn enable() {
    // SAFETY: a bit that changes what other instructions do only where they would fault.
    unsafe {
        asm!(
            "mov {cr4}, cr4",
            "or {cr4}, {bit}",
            "mov cr4, {cr4}",
            cr4 = out(reg) _,
            bit = in(reg) CR4_OSFXSR,
            options(nostack),
        );
    }
}

/// SHA-256's compression function; the processor must have SHA, SSSE3 and SSE4.1, and SSE must be enabled.
pub fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    if !blocks.is_empty() {
        // SAFETY: the state is written and the blocks are read within their bounds.
        unsafe { stage0_sha_ni(state, blocks.as_ptr(), blocks.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_computes_what_the_other_one_does(state: [u32; 8], blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 64), 0..5)) {
            if !std::arch::is_x86_feature_detected!("sha") {
                eprintln!("skipped: this processor has no SHA instructions");
                return Ok(());
            }
            let blocks: Vec<[u8; 64]> = blocks.into_iter().map(|block| block.try_into().unwrap()).collect();
            let (mut with, mut without) = (state, state);
            compress(&mut with, &blocks);
            crate::soft(&mut without, &blocks);
            prop_assert_eq!(with, without);
        }
    }
}
