//! The CPUID bits that a guest may see: one row per sub-leaf.

pub const VENDOR_AND_MAX_LEAF: u32 = 0;
pub const FEATURES: u32 = 1;
pub const CACHES_INTEL: u32 = 4;
pub const STRUCTURED_FEATURES: u32 = 7;
pub const TOPOLOGY: u32 = 0xb;
const XSAVE: u32 = 0xd;
const KVM_FEATURES: u32 = 0x4000_0001;
pub const EXTENDED_MAX_LEAF: u32 = 0x8000_0000;
pub const EXTENDED_FEATURES: u32 = 0x8000_0001;
pub const SIZES: u32 = 0x8000_0008;
pub const CACHES_AMD: u32 = 0x8000_001d;
pub const TOPOLOGY_AMD: u32 = 0x8000_001e;
pub const ENCRYPTION: u32 = 0x8000_001f;

/// A whole register.
pub const ALL: u32 = u32::MAX;

/// Bits of EAX, EBX, ECX and EDX of one sub-leaf that the guest may see.
pub struct Passed {
    /// Leaf.
    pub function: u32,
    /// `None`: every sub-leaf, or a leaf without any.
    pub index: Option<u32>,
    /// Masks of the four registers.
    pub registers: [u32; 4],
}

const fn leaf(function: u32, registers: [u32; 4]) -> Passed {
    Passed {
        function,
        index: None,
        registers,
    }
}

const fn subleaf(function: u32, index: u32, registers: [u32; 4]) -> Passed {
    Passed {
        function,
        index: Some(index),
        registers,
    }
}

/// A register with these bits set.
const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let (mut register, mut at) = (0, 0);
    while at < N {
        register |= 1 << numbers[at];
        at += 1;
    }
    register
}

/// Sources: Intel SDM volume 2A ("CPUID"), AMD APM volume 3 appendix E, Linux `arch/x86/include/asm/cpufeatures.h`.
pub const PASSED: &[Passed] = &[
    leaf(VENDOR_AND_MAX_LEAF, [ALL; 4]),
    leaf(FEATURES, [ALL, ALL, super::FEATURES_ECX | FEATURES_ECX_PASSED, FEATURES_EDX_PASSED]),
    leaf(2, [ALL; 4]),
    leaf(CACHES_INTEL, [ALL; 4]),
    // ARAT: the local APIC's timer runs in all C-states.
    leaf(6, [bits([2]), 0, 0, 0]),
    subleaf(STRUCTURED_FEATURES, 0, [ALL, STRUCTURED_EBX, STRUCTURED_ECX, STRUCTURED_EDX]),
    // SHA-512, SM3, SM4, AVX-VNNI, BF16, CMPccXADD, fast short string functions, AVX-IFMA; VNNI of 8 and 16 bits, prefetches.
    subleaf(
        STRUCTURED_FEATURES,
        1,
        [bits([0, 1, 2, 4, 5, 7, 10, 11, 12, 23]), 0, 0, bits([4, 5, 10, 14])],
    ),
    // Speculation controls.
    subleaf(STRUCTURED_FEATURES, 2, [0, 0, 0, bits([0, 1, 2, 3, 4, 5])]),
    // x87, SSE, AVX, AVX-512 and protection keys; sizes depend on what the guest enables.
    subleaf(XSAVE, 0, [XSAVE_STATES, ALL, ALL, 0]),
    // XSAVEOPT, XSAVEC, XGETBV with ECX=1, XSAVES, and no supervisor state.
    subleaf(XSAVE, 1, [bits([0, 1, 2, 3]), ALL, 0, 0]),
    subleaf(XSAVE, 2, [ALL; 4]),
    subleaf(XSAVE, 5, [ALL; 4]),
    subleaf(XSAVE, 6, [ALL; 4]),
    subleaf(XSAVE, 7, [ALL; 4]),
    subleaf(XSAVE, 9, [ALL; 4]),
    leaf(0x4000_0000, [ALL; 4]),
    leaf(KVM_FEATURES, [KVM_EAX, 0, 0, 0]),
    leaf(EXTENDED_MAX_LEAF, [ALL; 4]),
    leaf(EXTENDED_FEATURES, [ALL, ALL, EXTENDED_ECX, EXTENDED_EDX]),
    leaf(0x8000_0002, [ALL; 4]),
    leaf(0x8000_0003, [ALL; 4]),
    leaf(0x8000_0004, [ALL; 4]),
    leaf(0x8000_0005, [ALL; 4]),
    leaf(0x8000_0006, [ALL; 4]),
    // Invariant TSC.
    leaf(0x8000_0007, [0, 0, 0, bits([8])]),
    leaf(SIZES, [ALL, SIZES_EBX, ALL, 0]),
    leaf(CACHES_AMD, [ALL; 4]),
    leaf(TOPOLOGY_AMD, [ALL; 4]),
    // No nested data breakpoints, LFENCE serialising, VERW clears buffers, null selectors, automatic IBRS, SRSO and TSA status.
    leaf(0x8000_0021, [bits([0, 2, 5, 6, 8, 27, 28, 29, 30]), 0, bits([1, 2]), 0]),
];

/// What an encrypted guest sees besides: SEV, SEV-ES, SEV-SNP, coherency across encryption, and the position of the C-bit.
pub const PASSED_ENCRYPTED: Passed = leaf(ENCRYPTION, [bits([1, 3, 4, 10]), 0x3f, 0, 0]);

/// SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND. Not passed: the
/// debug store, MONITOR, VMX, SMX, SpeedStep and thermal control, performance capabilities, direct cache access.
const FEATURES_ECX_PASSED: u32 = bits([0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// The baseline of 64-bit processors, with SSE2 and self-snoop. Not passed: serial number, debug store, thermal control.
const FEATURES_EDX_PASSED: u32 = bits([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27, 28]);
/// FSGSBASE, TSC_ADJUST, BMI1, AVX2, FDP, SMEP, BMI2, ERMS, INVPCID, FCS, AVX-512 F, DQ, RDSEED, ADX, SMAP, IFMA, CLFLUSHOPT,
/// CLWB, AVX-512 CD, SHA, AVX-512 BW, VL. Not passed: SGX, TSX, cache monitoring, MPX, processor trace.
const STRUCTURED_EBX: u32 = bits([0, 1, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);
/// VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID, CLDEMOTE, MOVDIRI, MOVDIR64B. Not passed:
/// WAITPKG, shadow stacks, memory encryption, 5-level paging, key locker, bus locks, ENQCMD, supervisor keys.
const STRUCTURED_ECX: u32 = bits([1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]);
/// FSRM, VP2INTERSECT, MD_CLEAR, SERIALIZE, AVX512-FP16, speculation controls, and ARCH_CAPABILITIES.
const STRUCTURED_EDX: u32 = bits([4, 8, 10, 14, 23, 26, 27, 28, 29, 31]);
/// x87, SSE, AVX, the three states of AVX-512, protection keys.
const XSAVE_STATES: u32 = bits([0, 1, 2, 5, 6, 7, 9]);
/// Clocks, no delay after port accesses, steal time, end of interrupt, unhalt, TLB flush, IPIs, polling, yields.
///
/// Not passed: asynchronous page faults (4, 10, 14). After "page not present" a guest sleeps until "page ready", and KVM has
/// lost that event more than once, so that the vCPU hung (Cloud Hypervisor #2277, Firecracker #3043). They help only if the
/// host swaps guest memory.
const KVM_EAX: u32 = bits([0, 1, 3, 5, 6, 7, 9, 11, 12, 13, 24]);
/// LAHF, legacy multi-core, CR8 by lock, LZCNT, SSE4A, misaligned SSE, PREFETCHW, XOP, FMA4, TBM, topology leaves. Not passed:
/// SVM, extended APIC space, errata of the host, IBS, SKINIT, watchdog, counters, data breakpoints, MWAITX.
const EXTENDED_ECX: u32 = bits([0, 1, 4, 5, 6, 7, 8, 11, 16, 21, 22]);
/// As leaf 1, and SYSCALL, NX, MMX extensions, FXSR, pages of 1 GiB, RDTSCP, long mode.
const EXTENDED_EDX: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 29,
]);
/// CLZERO, error pointers, WBNOINVD, and speculation controls.
const SIZES_EBX: u32 = bits([0, 2, 9, 12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29, 30]);
