//! The header before each frame (`struct virtio_net_hdr_mrg_rxbuf`; virtio 1.2, 5.1.6): what of it passes, each way.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Length of a header, in the rings and on the TAP.
pub const HEADER_BYTES: usize = 12;

/// A header as it is in memory, little-endian.
pub type Header = [u8; HEADER_BYTES];

const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const DATA_VALID: u8 = VIRTIO_NET_HDR_F_DATA_VALID as u8;
const GSO_ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;
const GSO_NONE: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const GSO_TCPV4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const GSO_TCPV6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;

/// Offsets of the fields.
const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const SEGMENTATION: std::ops::Range<usize> = 2..6;
const GSO_SIZE: std::ops::Range<usize> = 4..6;
const CHECKSUM: std::ops::Range<usize> = 6..10;
const NUM_BUFFERS: std::ops::Range<usize> = 10..12;

/// The header that goes to the TAP with a frame of the guest; `None` if it asks for what the driver has not negotiated, or for
/// segments without a size or a checksum. The kernel checks the rest against the frame.
pub fn from_guest(mut header: Header, features: u64) -> Option<Header> {
    let has = |feature: u32| features & 1 << feature != 0;
    header[FLAGS] &= NEEDS_CSUM;
    let wants_checksum = header[FLAGS] != 0;
    let (allowed, is_whole) = match header[GSO_TYPE] {
        GSO_NONE => (true, true),
        GSO_TCPV4 => (has(VIRTIO_NET_F_HOST_TSO4), false),
        GSO_TCPV6 => (has(VIRTIO_NET_F_HOST_TSO6), false),
        _ => (false, false),
    };
    let can_segment = wants_checksum && header[GSO_SIZE] != [0, 0];
    if !allowed || (wants_checksum && !has(VIRTIO_NET_F_CSUM)) || !(is_whole || can_segment) {
        return None;
    }
    if is_whole {
        header[SEGMENTATION].fill(0);
    }
    if !wants_checksum {
        header[CHECKSUM].fill(0);
    }
    header[NUM_BUFFERS].fill(0);
    Some(header)
}

/// The header that goes to the guest with a frame of the TAP; `None` if the driver has not negotiated what the frame needs.
/// [`set_buffers`] completes it.
pub fn for_guest(mut header: Header, features: u64) -> Option<Header> {
    let has = |feature: u32| features & 1 << feature != 0;
    let understands_checksums = has(VIRTIO_NET_F_GUEST_CSUM);
    header[FLAGS] &= if understands_checksums {
        NEEDS_CSUM | DATA_VALID
    } else {
        NEEDS_CSUM
    };
    // A host that has this bit only says that the sender reduced its window: the device does not offer it.
    header[GSO_TYPE] &= !GSO_ECN;
    let allowed = match header[GSO_TYPE] {
        GSO_NONE => true,
        GSO_TCPV4 => has(VIRTIO_NET_F_GUEST_TSO4),
        GSO_TCPV6 => has(VIRTIO_NET_F_GUEST_TSO6),
        _ => false,
    };
    (allowed && (understands_checksums || header[FLAGS] & NEEDS_CSUM == 0)).then_some(header)
}

/// Says in how many chains a frame is.
pub fn set_buffers(header: &mut Header, count: u16) {
    header[NUM_BUFFERS].copy_from_slice(&count.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u64 = u64::MAX;
    /// Wants a checksum at 34 + 16, and segments of 1448 bytes.
    const SEGMENTED: Header = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 9, 9];

    #[test]
    fn a_header_of_the_guest_passes_as_negotiated() {
        let sent = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
        assert_eq!(from_guest(SEGMENTED, ALL), Some(sent));
        for missing in [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4] {
            assert_eq!(from_guest(SEGMENTED, ALL & !(1 << missing)), None, "{missing}");
        }
        let without = |offset: usize| {
            let mut header = SEGMENTED;
            header[offset..offset + 1 + offset / 4].fill(0);
            header
        };
        assert_eq!(from_guest(without(0), ALL), None, "segments without a checksum");
        assert_eq!(from_guest(without(4), ALL), None, "segments without a size");
        let plain = [0xfe, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(from_guest(plain, 0), Some([0; HEADER_BYTES]));
    }

    #[test]
    fn a_header_of_the_host_passes_as_negotiated() {
        let mut arrived = SEGMENTED;
        arrived[GSO_TYPE] |= GSO_ECN;
        let mut header = for_guest(arrived, ALL).unwrap();
        set_buffers(&mut header, 0x102);
        assert_eq!(header, [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 2, 1]);
        for missing in [VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4] {
            assert_eq!(for_guest(arrived, ALL & !(1 << missing)), None, "{missing}");
        }
        let valid = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(for_guest(valid, 0), Some([0; HEADER_BYTES]));
        assert_eq!(for_guest(valid, ALL), Some(valid));
    }

    proptest! {
        /// UDP and later kinds of segments, and flags that no feature names, never pass.
        #[test]
        fn nothing_unknown_reaches_the_tap(header: Header, features: u64) {
            if let Some(sent) = from_guest(header, features) {
                prop_assert!(sent[0] <= 1 && [0, 1, 4].contains(&sent[1]) && sent[10..] == [0, 0]);
            }
        }
    }
}
