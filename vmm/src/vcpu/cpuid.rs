//! CPUID: what the host's KVM supports, with the topology of this VM in place of the host's.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const VENDOR_AND_MAX_LEAF: u32 = 0;
const FEATURES: u32 = 1;
const CACHES_INTEL: u32 = 4;
const PERFORMANCE_MONITORING: u32 = 0xa;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
const KVM_FEATURES: u32 = 0x4000_0001;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const SIZES: u32 = 0x8000_0008;
const CACHES_AMD: u32 = 0x8000_001d;
const TOPOLOGY_AMD: u32 = 0x8000_001e;
const PERFORMANCE_MONITORING_AMD: u32 = 0x8000_0022;

/// Leaf 1 ECX: x2APIC, TSC deadline timer, "running under a hypervisor". KVM's in-kernel local APIC has the first two,
/// but `KVM_GET_SUPPORTED_CPUID` leaves the timer out.
const FEATURES_ECX: u32 = 1 << 21 | 1 << 24 | 1 << 31;
/// Leaf 1 EDX: more than one logical processor.
const FEATURES_EDX_MULTI: u32 = 1 << 28;
/// Leaf 0x4000_0001 EAX: asynchronous page faults and both ways to tell of them. A guest that is told "page not present"
/// sleeps until it is told of the page's arrival, and KVM has lost such news more than once (Cloud Hypervisor 2277,
/// Firecracker 3043: a vCPU that spins or sleeps for ever). They pay off only where the host swaps guests out.
const KVM_ASYNC_PAGE_FAULTS: u32 = 1 << 4 | 1 << 10 | 1 << 14;
/// Leaf 0x8000_0001 ECX: legacy multi-core (AMD).
const EXTENDED_ECX_MULTI: u32 = 1 << 1;
/// Leaf 0x8000_0001 ECX: performance counters of core, north bridge and L3.
const EXTENDED_ECX_COUNTERS: u32 = 1 << 23 | 1 << 24 | 1 << 28;

/// The leaves of vCPU `id` of `count`: one socket, `count` cores, one thread each, APIC id = index.
pub fn for_vcpu(supported: &CpuId, id: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
    let (id, count) = (u32::from(id), u32::from(count));
    let mut leaves = supported.as_slice().to_vec();
    let amd = is_amd(&leaves);
    // The host's own topology and its performance counters are not the guest's.
    leaves.retain(|l| ![TOPOLOGY, TOPOLOGY_V2, PERFORMANCE_MONITORING, PERFORMANCE_MONITORING_AMD].contains(&l.function));
    for leaf in &mut leaves {
        match leaf.function {
            FEATURES => {
                leaf.ebx = leaf.ebx & 0xffff | count << 16 | id << 24;
                leaf.ecx |= FEATURES_ECX;
                leaf.edx = with_bits(leaf.edx, FEATURES_EDX_MULTI, count > 1);
            }
            CACHES_INTEL | CACHES_AMD if leaf.eax & 0x1f != 0 => {
                let level = leaf.eax >> 5 & 7;
                let sharing = if level >= 3 { count } else { 1 };
                leaf.eax = leaf.eax & 0x3fff | (sharing - 1) << 14;
                if leaf.function == CACHES_INTEL {
                    leaf.eax |= (count - 1) << 26;
                }
            }
            EXTENDED_FEATURES if amd => {
                leaf.ecx = with_bits(leaf.ecx, EXTENDED_ECX_MULTI, count > 1) & !EXTENDED_ECX_COUNTERS;
            }
            KVM_FEATURES => leaf.eax &= !KVM_ASYNC_PAGE_FAULTS,
            SIZES if amd => leaf.ecx = (count - 1) | (id_bits(count) << 12),
            TOPOLOGY_AMD => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (id, id, 0, 0),
            _ => {}
        }
    }
    if leaves.iter().any(|l| l.function == VENDOR_AND_MAX_LEAF && l.eax >= TOPOLOGY) {
        leaves.extend(topology(id, count));
    }
    leaves
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

    fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
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
            leaf(0, 0, [0xd, u32::from_le_bytes(*b"Auth"), 0, 0]),
            leaf(1, 0, [0, 0x1540_0800, 0x0020_0000, 1 << 28]),
            leaf(0xa, 0, [0x0730_0404, 0, 0, 0]),
            leaf(0xb, 0, [1, 2, 0x100, 0x15]),
            leaf(0xb, 1, [7, 64, 0x201, 0x15]),
            leaf(0x8000_0001, 0, [0, 0, 1 << 1 | 1 << 23 | 1 << 22, 0]),
            leaf(0x8000_0008, 0, [0x3030, 0, 0x703f, 0]),
            leaf(0x8000_001d, 0, [0x0000_4121, 0, 0, 0]),
            leaf(0x8000_001d, 3, [0x0003_c163, 0, 0, 0]),
            leaf(0x8000_001e, 0, [0x15, 0x10a, 3, 0]),
            leaf(0x4000_0000, 0, [0x4000_0001, 1, 2, 3]),
            leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
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
}
