//! CPUID: the part of what KVM supports that a guest needs, with the VM's topology instead of the host's.
//!
//! [`PASSED`] lists the bits that are passed through. Everything else that this or a later KVM offers is masked: nested
//! virtualisation (much host kernel code that a guest could attack), performance counters, tracing, TSX, SGX, CET, AMX, and
//! leaf 0x8000001f, whose bits make Linux read MSRs that only an SEV guest has: only a guest that is one sees it.

mod table;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use table::{
    CACHES_AMD, CACHES_INTEL, ENCRYPTION, EXTENDED_FEATURES, EXTENDED_MAX_LEAF, FEATURES, PASSED, PASSED_ENCRYPTED, Passed, SIZES,
    STRUCTURED_FEATURES, TOPOLOGY, TOPOLOGY_AMD, VENDOR_AND_MAX_LEAF,
};

/// Leaf 1 ECX: x2APIC, TSC deadline timer, hypervisor present. KVM's in-kernel local APIC has the first two, but
/// `KVM_GET_SUPPORTED_CPUID` does not report the timer.
const FEATURES_ECX: u32 = 1 << 21 | 1 << 24 | 1 << 31;
/// Leaf 1 EDX: more than one logical processor.
const FEATURES_EDX_MULTI: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX: legacy multi-core (AMD).
const EXTENDED_ECX_MULTI: u32 = 1 << 1;
/// Last sub-leaf of leaf 7 that is passed through.
const STRUCTURED_LAST: u32 = 2;

/// The position of the C-bit that KVM reports (AMD64 APM 3, appendix E.4.17); `None` on a host without SEV.
pub fn encryption_bit(supported: &CpuId) -> Option<u32> {
    let leaf = supported.as_slice().iter().find(|leaf| leaf.function == ENCRYPTION)?;
    (leaf.eax != 0).then_some(leaf.ebx & 0x3f)
}

/// The leaves of vCPU `id` of `count`: one socket, `count` cores, one thread each, APIC id = index.
pub fn for_vcpu(supported: &CpuId, id: u8, count: u8, encrypted: bool) -> Vec<kvm_cpuid_entry2> {
    let (id, count) = (u32::from(id), u32::from(count));
    let amd = is_amd(supported.as_slice());
    let passed = |leaf| passed(leaf, encrypted);
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
    set_max_leaf(&mut leaves, VENDOR_AND_MAX_LEAF);
    set_max_leaf(&mut leaves, EXTENDED_MAX_LEAF);
    leaves
}

/// Masks one sub-leaf; `None` if the guest does not see it.
fn passed(supported: &kvm_cpuid_entry2, encrypted: bool) -> Option<kvm_cpuid_entry2> {
    let same = |row: &&Passed| row.function == supported.function && row.index.is_none_or(|index| index == supported.index);
    let more = encrypted.then_some(&PASSED_ENCRYPTED);
    let [eax, ebx, ecx, edx] = PASSED.iter().chain(more).find(same)?.registers;
    Some(kvm_cpuid_entry2 {
        eax: supported.eax & eax,
        ebx: supported.ebx & ebx,
        ecx: supported.ecx & ecx,
        edx: supported.edx & edx,
        ..*supported
    })
}

/// Sets the maximum leaf of a range, which leaf `first` reports in EAX, to the last leaf present.
fn set_max_leaf(leaves: &mut [kvm_cpuid_entry2], first: u32) {
    const RANGE: u32 = 0xffff_0000;
    let range = leaves
        .iter()
        .map(|leaf| leaf.function)
        .filter(|function| function & RANGE == first & RANGE);
    let last = range.max().unwrap_or(first);
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

/// Width of APIC ids below `count`.
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
    use super::{table::ALL, *};

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
        let leaves = for_vcpu(&host(), id, count, false);
        let l = leaves.iter().find(|l| l.function == function && l.index == index).unwrap();
        [l.eax, l.ebx, l.ecx, l.edx]
    }

    #[test]
    fn each_vcpu_sees_its_id_and_the_vm_s_topology() {
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
    fn the_host_s_topology_and_counters_are_masked() {
        let leaves = for_vcpu(&host(), 0, 1, false);
        assert!(leaves.iter().all(|l| l.function != 0xa && l.edx != 0x15));
        assert_eq!(of(0, 1, 0x8000_0001, 0)[2], 1 << 22, "no counters, no siblings");
        assert_eq!(of(0, 1, 0x4000_0000, 0), [0x4000_0001, 1, 2, 3], "KVM's own leaves stay");
        assert_eq!(of(0, 1, 0x4000_0001, 0)[0], 0x0100_3aeb, "except asynchronous page faults");
    }

    /// A host with every bit of every leaf set, including leaves that do not exist.
    fn everything(vendor: &[u8; 4]) -> CpuId {
        let functions = (0..0x30).chain(0x4000_0000..0x4000_0010).chain(0x8000_0000..0x8000_0030);
        let all = functions.flat_map(|function| {
            let indexes = if [7, 0xd].contains(&function) { 0..20 } else { 0..1 };
            indexes.map(move |index| entry(function, index, [ALL; 4]))
        });
        let mut all = all.collect::<Vec<_>>();
        all[0].ebx = u32::from_le_bytes(*vendor);
        CpuId::from_entries(&all).unwrap()
    }

    #[test]
    fn nested_virtualisation_is_masked() {
        for vendor in [b"Auth", b"Genu"] {
            let leaves = for_vcpu(&everything(vendor), 1, 4, false);
            let register = |function| leaves.iter().find(|l| l.function == function).unwrap();
            assert_eq!(register(1).ecx & (1 << 5 | 1 << 6 | 1 << 3), 0, "VMX, SMX, MONITOR");
            assert_eq!(register(0x8000_0001).ecx & (1 << 2 | 1 << 12), 0, "SVM, SKINIT");
            for gone in [5, 0xa, 0x12, 0x14, 0x1f, 0x8000_000a, 0x8000_001f, 0x8000_0022, 0x4000_0002] {
                assert!(leaves.iter().all(|l| l.function != gone), "{gone:#x}");
            }
        }
    }

    #[test]
    fn only_listed_bits_are_passed_through() {
        let leaves = for_vcpu(&everything(b"Auth"), 0, 1, false);
        let registers = |function, index| {
            let l = leaves.iter().find(|l| l.function == function && l.index == index);
            l.map(|l| [l.eax, l.ebx, l.ecx, l.edx])
        };
        assert_eq!(registers(0, 0).unwrap()[0], 0xd, "the maximum leaf is present");
        assert_eq!(registers(0x8000_0000, 0).unwrap()[0], 0x8000_0021);
        assert_eq!(registers(7, 0).unwrap(), [2, 0xf1bf_27eb, 0x1a40_5f4e, 0xbc80_4510]);
        assert_eq!(registers(7, 3), None);
        assert_eq!(registers(0xd, 0).unwrap()[0], 0x2e7);
        assert_eq!(registers(0xd, 1).unwrap()[2], 0, "no supervisor state");
        assert_eq!((registers(0xd, 11), registers(0xd, 17)), (None, None), "neither CET nor AMX");
        assert_eq!(registers(6, 0).unwrap(), [4, 0, 0, 0]);
        assert!(leaves.len() <= 64, "an SNP guest's CPUID page has room for 64");
    }

    #[test]
    fn only_an_encrypted_guest_sees_where_the_c_bit_is() {
        assert_eq!(encryption_bit(&host()), None);
        let all = everything(b"Auth");
        assert_eq!(encryption_bit(&all), Some(0x3f));
        let leaves = for_vcpu(&all, 0, 1, true);
        let registers = |function| {
            let leaf = leaves.iter().find(|leaf| leaf.function == function).unwrap();
            [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
        };
        assert_eq!(registers(0x8000_001f), [0x41a, 0x3f, 0, 0]);
        assert_eq!(registers(0x8000_0000)[0], 0x8000_0021, "the maximum leaf covers it");
        assert!(leaves.len() <= 64, "an SNP guest's CPUID page has room for 64");
    }
}
