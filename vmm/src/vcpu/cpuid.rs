//! CPUID: of what the host's KVM supports, the part that a guest of ours needs, with the topology of this VM in place of the
//! host's.
//!
//! What is passed on stands in one table, [`PASSED`]; whatever else this or a later KVM offers stays out: nested
//! virtualisation (a second hypervisor's worth of host kernel for an attacker), performance counters, tracing, TSX, SGX, CET,
//! AMX, and leaf 0x8000001f, whose bits make Linux read registers that only an SEV guest has.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const VENDOR_AND_MAX_LEAF: u32 = 0;
const FEATURES: u32 = 1;
const CACHES_INTEL: u32 = 4;
const STRUCTURED_FEATURES: u32 = 7;
const TOPOLOGY: u32 = 0xb;
const XSAVE: u32 = 0xd;
const KVM_FEATURES: u32 = 0x4000_0001;
const EXTENDED_MAX_LEAF: u32 = 0x8000_0000;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const SIZES: u32 = 0x8000_0008;
const CACHES_AMD: u32 = 0x8000_001d;
const TOPOLOGY_AMD: u32 = 0x8000_001e;

/// Leaf 1 ECX: x2APIC, TSC deadline timer, "running under a hypervisor". KVM's in-kernel local APIC has the first two,
/// but `KVM_GET_SUPPORTED_CPUID` leaves the timer out.
const FEATURES_ECX: u32 = 1 << 21 | 1 << 24 | 1 << 31;
/// Leaf 1 EDX: more than one logical processor.
const FEATURES_EDX_MULTI: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX: legacy multi-core (AMD).
const EXTENDED_ECX_MULTI: u32 = 1 << 1;
/// Last sub-leaf of leaf 7 that is passed on.
const STRUCTURED_LAST: u32 = 2;

/// A whole register.
const ALL: u32 = u32::MAX;

/// Bits of EAX, EBX, ECX and EDX of one sub-leaf that reach the guest.
struct Passed {
    function: u32,
    /// `None`: every sub-leaf, or a leaf without any.
    index: Option<u32>,
    registers: [u32; 4],
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

/// The register that has these bits.
const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let (mut register, mut at) = (0, 0);
    while at < N {
        register |= 1 << numbers[at];
        at += 1;
    }
    register
}

/// After Intel SDM volume 2A ("CPUID"), AMD APM volume 3 appendix E and Linux `arch/x86/include/asm/cpufeatures.h`.
const PASSED: &[Passed] = &[
    leaf(VENDOR_AND_MAX_LEAF, [ALL; 4]),
    leaf(FEATURES, [ALL, ALL, FEATURES_ECX | FEATURES_ECX_PASSED, FEATURES_EDX_PASSED]),
    leaf(2, [ALL; 4]),
    leaf(CACHES_INTEL, [ALL; 4]),
    // The local APIC's timer goes on in every sleep.
    leaf(6, [bits([2]), 0, 0, 0]),
    subleaf(STRUCTURED_FEATURES, 0, [ALL, STRUCTURED_EBX, STRUCTURED_ECX, STRUCTURED_EDX]),
    // SHA-512, SM3, SM4, AVX-VNNI, BF16, CMPccXADD, fast short string functions, AVX-IFMA; VNNI of 8 and 16 bits, prefetches.
    subleaf(
        STRUCTURED_FEATURES,
        1,
        [bits([0, 1, 2, 4, 5, 7, 10, 11, 12, 23]), 0, 0, bits([4, 5, 10, 14])],
    ),
    // Controls of speculation.
    subleaf(STRUCTURED_FEATURES, 2, [0, 0, 0, bits([0, 1, 2, 3, 4, 5])]),
    // x87, SSE, AVX, AVX-512 and protection keys; sizes depend on what the guest switches on.
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
    // A time stamp counter of constant rate.
    leaf(0x8000_0007, [0, 0, 0, bits([8])]),
    leaf(SIZES, [ALL, SIZES_EBX, ALL, 0]),
    leaf(CACHES_AMD, [ALL; 4]),
    leaf(TOPOLOGY_AMD, [ALL; 4]),
    // No breakpoint on nested data, LFENCE and VERW as barriers, null selectors, automatic IBRS; how SRSO and TSA are met.
    leaf(0x8000_0021, [bits([0, 2, 5, 6, 8, 27, 28, 29, 30]), 0, bits([1, 2]), 0]),
];

/// SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND. Not passed: the
/// debug store, MONITOR, VMX, SMX, SpeedStep and thermal control, performance capabilities, direct cache access.
const FEATURES_ECX_PASSED: u32 = bits([0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// What every 64-bit processor has, up to SSE2 and self-snoop. Not passed: serial number, debug store, thermal control.
const FEATURES_EDX_PASSED: u32 = bits([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27, 28]);
/// FSGSBASE, TSC_ADJUST, BMI1, AVX2, FDP, SMEP, BMI2, ERMS, INVPCID, FCS, AVX-512 F, DQ, RDSEED, ADX, SMAP, IFMA, CLFLUSHOPT,
/// CLWB, AVX-512 CD, SHA, AVX-512 BW, VL. Not passed: SGX, TSX, cache monitoring, MPX, processor trace.
const STRUCTURED_EBX: u32 = bits([0, 1, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);
/// VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID, CLDEMOTE, MOVDIRI, MOVDIR64B. Not passed:
/// WAITPKG, shadow stacks, memory encryption, 5-level paging, key locker, bus locks, ENQCMD, supervisor keys.
const STRUCTURED_ECX: u32 = bits([1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]);
/// FSRM, VP2INTERSECT, MD_CLEAR, SERIALIZE, AVX512-FP16, and the controls of speculation with the list of what needs none.
const STRUCTURED_EDX: u32 = bits([4, 8, 10, 14, 23, 26, 27, 28, 29, 31]);
/// x87, SSE, AVX, the three states of AVX-512, protection keys.
const XSAVE_STATES: u32 = bits([0, 1, 2, 5, 6, 7, 9]);
/// Clocks, no delay after port accesses, steal time, end of interrupt, unhalt, TLB flush, IPIs, polling, yields.
///
/// Not asynchronous page faults (4, 10, 14): a guest that is told "page not present" sleeps until it is told of the page's
/// arrival, and KVM has lost such news more than once (Cloud Hypervisor 2277, Firecracker 3043: a vCPU that spins or sleeps for
/// ever). They pay off only where the host swaps guests out.
const KVM_EAX: u32 = bits([0, 1, 3, 5, 6, 7, 9, 11, 12, 13, 24]);
/// LAHF, legacy multi-core, CR8 by lock, LZCNT, SSE4A, misaligned SSE, PREFETCHW, XOP, FMA4, TBM, topology leaves. Not passed:
/// SVM, extended APIC space, errata of the host, IBS, SKINIT, watchdog, counters, data breakpoints, MWAITX.
const EXTENDED_ECX: u32 = bits([0, 1, 4, 5, 6, 7, 8, 11, 16, 21, 22]);
/// As leaf 1, and SYSCALL, NX, MMX extensions, FXSR, pages of 1 GiB, RDTSCP, long mode.
const EXTENDED_EDX: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 29,
]);
/// CLZERO, error pointers, WBNOINVD, and the controls of speculation.
const SIZES_EBX: u32 = bits([0, 2, 9, 12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29, 30]);

/// The leaves of vCPU `id` of `count`: one socket, `count` cores, one thread each, APIC id = index.
pub fn for_vcpu(supported: &CpuId, id: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
    let (id, count) = (u32::from(id), u32::from(count));
    let amd = is_amd(supported.as_slice());
    let mut leaves = supported.as_slice().iter().filter_map(passed).collect::<Vec<_>>();
    for leaf in &mut leaves {
        match leaf.function {
            FEATURES => {
                leaf.ebx = leaf.ebx & 0xffff | count << 16 | id << 24;
                leaf.ecx |= FEATURES_ECX;
                leaf.edx = with_bits(leaf.edx, FEATURES_EDX_MULTI, count > 1);
            }
            STRUCTURED_FEATURES if leaf.index == 0 => leaf.eax = leaf.eax.min(STRUCTURED_LAST),
            CACHES_INTEL | CACHES_AMD if leaf.eax & 0x1f != 0 => {
                let level = leaf.eax >> 5 & 7;
                let sharing = if level >= 3 { count } else { 1 };
                leaf.eax = leaf.eax & 0x3fff | (sharing - 1) << 14;
                if leaf.function == CACHES_INTEL {
                    leaf.eax |= (count - 1) << 26;
                }
            }
            EXTENDED_FEATURES => leaf.ecx = with_bits(leaf.ecx, EXTENDED_ECX_MULTI, amd && count > 1),
            SIZES => leaf.ecx = if amd { (count - 1) | (id_bits(count) << 12) } else { 0 },
            TOPOLOGY_AMD => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (id, id, 0, 0),
            _ => {}
        }
    }
    if supported
        .as_slice()
        .iter()
        .any(|l| l.function == VENDOR_AND_MAX_LEAF && l.eax >= TOPOLOGY)
    {
        leaves.extend(topology(id, count));
    }
    end_with_the_last(&mut leaves, VENDOR_AND_MAX_LEAF);
    end_with_the_last(&mut leaves, EXTENDED_MAX_LEAF);
    leaves
}

/// What reaches a guest of one sub-leaf of the host's.
fn passed(supported: &kvm_cpuid_entry2) -> Option<kvm_cpuid_entry2> {
    let same = |row: &&Passed| row.function == supported.function && row.index.is_none_or(|index| index == supported.index);
    let [eax, ebx, ecx, edx] = PASSED.iter().find(same)?.registers;
    Some(kvm_cpuid_entry2 {
        eax: supported.eax & eax,
        ebx: supported.ebx & ebx,
        ecx: supported.ecx & ecx,
        edx: supported.edx & edx,
        ..*supported
    })
}

/// Leaf `first` of a group of leaves says which is the group's last.
fn end_with_the_last(leaves: &mut [kvm_cpuid_entry2], first: u32) {
    const GROUP: u32 = 0xffff_0000;
    let group = leaves
        .iter()
        .map(|leaf| leaf.function)
        .filter(|function| function & GROUP == first & GROUP);
    let last = group.max().unwrap_or(first);
    for leaf in leaves.iter_mut().filter(|leaf| leaf.function == first) {
        leaf.eax = last;
    }
}

/// Leaf 0xb: level 0 is one thread, level 1 all cores, level 2 ends the list.
fn topology(id: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | kind << 8,
        edx: id,
        ..Default::default()
    };
    [level(0, 0, 1, 1), level(1, id_bits(count), count, 2), level(2, 0, 0, 0)]
}

/// Bits that an APIC id below `count` takes.
fn id_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn with_bits(register: u32, bits: u32, set: bool) -> u32 {
    if set { register | bits } else { register & !bits }
}

/// "AuthenticAMD" or "HygonGenuine".
fn is_amd(leaves: &[kvm_cpuid_entry2]) -> bool {
    let vendor = leaves.iter().find(|l| l.function == VENDOR_AND_MAX_LEAF).map_or(0, |l| l.ebx);
    [*b"Auth", *b"Hygo"].map(u32::from_le_bytes).contains(&vendor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    /// An AMD host of 64 threads, APIC id 0x15.
    fn host() -> CpuId {
        CpuId::from_entries(&[
            entry(0, 0, [0xd, u32::from_le_bytes(*b"Auth"), 0, 0]),
            entry(1, 0, [0, 0x1540_0800, 0x0020_0000, 1 << 28]),
            entry(0xa, 0, [0x0730_0404, 0, 0, 0]),
            entry(0xb, 0, [1, 2, 0x100, 0x15]),
            entry(0xb, 1, [7, 64, 0x201, 0x15]),
            entry(0x8000_0001, 0, [0, 0, 1 << 1 | 1 << 23 | 1 << 22, 0]),
            entry(0x8000_0008, 0, [0x3030, 0, 0x703f, 0]),
            entry(0x8000_001d, 0, [0x0000_4121, 0, 0, 0]),
            entry(0x8000_001d, 3, [0x0003_c163, 0, 0, 0]),
            entry(0x8000_001e, 0, [0x15, 0x10a, 3, 0]),
            entry(0x4000_0000, 0, [0x4000_0001, 1, 2, 3]),
            entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        ])
        .unwrap()
    }

    fn of(id: u8, count: u8, function: u32, index: u32) -> [u32; 4] {
        let leaves = for_vcpu(&host(), id, count);
        let l = leaves.iter().find(|l| l.function == function && l.index == index).unwrap();
        [l.eax, l.ebx, l.ecx, l.edx]
    }

    #[test]
    fn each_vcpu_sees_itself_and_its_siblings() {
        assert_eq!(of(2, 4, 1, 0)[1], 0x0204_0800);
        assert_eq!(of(2, 4, 1, 0)[2], 1 << 21 | 1 << 24 | 1 << 31);
        assert_eq!((of(0, 1, 1, 0)[3], of(0, 2, 1, 0)[3]), (0, 1 << 28));
        assert_eq!(of(2, 4, 0xb, 0), [0, 1, 0x100, 2]);
        assert_eq!(of(2, 4, 0xb, 1), [2, 4, 0x201, 2]);
        assert_eq!(of(2, 3, 0xb, 1)[0], 2);
        assert_eq!(of(0, 1, 0xb, 1), [0, 1, 0x201, 0]);
        assert_eq!(of(2, 4, 0x8000_001e, 0), [2, 2, 0, 0]);
        assert_eq!(of(2, 4, 0x8000_0008, 0)[2], 3 | 2 << 12);
        assert_eq!(of(2, 4, 0x8000_001d, 0)[0], 0x121);
        assert_eq!(of(2, 4, 0x8000_001d, 3)[0], 0x163 | 3 << 14);
    }

    #[test]
    fn the_host_does_not_show_through() {
        let leaves = for_vcpu(&host(), 0, 1);
        assert!(leaves.iter().all(|l| l.function != 0xa && l.edx != 0x15));
        assert_eq!(of(0, 1, 0x8000_0001, 0)[2], 1 << 22, "no counters, no siblings");
        assert_eq!(of(0, 1, 0x4000_0000, 0), [0x4000_0001, 1, 2, 3], "KVM's own leaves stay");
        assert_eq!(of(0, 1, 0x4000_0001, 0)[0], 0x0100_3aeb, "but for asynchronous page faults");
    }

    /// A host of either vendor with every bit of every leaf set, more leaves than there are, and every sub-leaf of leaf 7 and 0xd.
    fn everything(vendor: &[u8; 4]) -> CpuId {
        let functions = (0..0x30).chain(0x4000_0000..0x4000_0010).chain(0x8000_0000..0x8000_0030);
        let all = functions.flat_map(|function| {
            let indexes = if [7, 0xd].contains(&function) { 0..20 } else { 0..1 };
            indexes.map(move |index| entry(function, index, [ALL; 4]))
        });
        let mut all = all.collect::<Vec<_>>();
        all[0].ebx = u32::from_le_bytes(*vendor);
        // More than KVM would take; what is passed on has to fit.
        CpuId::from_entries(&all).unwrap()
    }

    #[test]
    fn no_guest_is_told_of_nested_virtualisation() {
        for vendor in [b"Auth", b"Genu"] {
            let leaves = for_vcpu(&everything(vendor), 1, 4);
            let register = |function| leaves.iter().find(|l| l.function == function).unwrap();
            assert_eq!(register(1).ecx & (1 << 5 | 1 << 6 | 1 << 3), 0, "VMX, SMX, MONITOR");
            assert_eq!(register(0x8000_0001).ecx & (1 << 2 | 1 << 12), 0, "SVM, SKINIT");
            for gone in [5, 0xa, 0x12, 0x14, 0x1f, 0x8000_000a, 0x8000_001f, 0x8000_0022, 0x4000_0002] {
                assert!(leaves.iter().all(|l| l.function != gone), "{gone:#x}");
            }
        }
    }

    #[test]
    fn of_a_host_with_every_bit_set_the_listed_ones_are_passed_on() {
        let leaves = for_vcpu(&everything(b"Auth"), 0, 1);
        let registers = |function, index| {
            let l = leaves.iter().find(|l| l.function == function && l.index == index);
            l.map(|l| [l.eax, l.ebx, l.ecx, l.edx])
        };
        assert_eq!(registers(0, 0).unwrap()[0], 0xd, "the last leaf is one that is there");
        assert_eq!(registers(0x8000_0000, 0).unwrap()[0], 0x8000_0021);
        assert_eq!(registers(7, 0).unwrap(), [2, 0xf1bf_27eb, 0x1a40_5f4e, 0xbc80_4510]);
        assert_eq!(registers(7, 3), None);
        assert_eq!(registers(0xd, 0).unwrap()[0], 0x2e7);
        assert_eq!(registers(0xd, 1).unwrap()[2], 0, "no supervisor state");
        assert_eq!((registers(0xd, 11), registers(0xd, 17)), (None, None), "neither CET nor AMX");
        assert_eq!(registers(6, 0).unwrap(), [4, 0, 0, 0]);
        assert!(leaves.len() <= 64, "an SNP guest's CPUID page has room for 64");
    }
}
