//! The header of vsock packets (virtio 1.2, 5.10.6): parse and write.

/// Length of the header on the wire.
pub const HEADER_BYTES: usize = 44;
/// Longest payload of one packet, as in Linux (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// Address of the host (`VMADDR_CID_HOST`).
pub const HOST_CID: u64 = 2;
/// Socket type: a stream.
pub const TYPE_STREAM: u16 = 1;

/// Requests a connection.
pub const OP_REQUEST: u16 = 1;
/// Accepts a connection.
pub const OP_RESPONSE: u16 = 2;
/// Refuses or resets a connection.
pub const OP_RST: u16 = 3;
/// Closes one or both directions, see [`SHUTDOWN_RCV`].
pub const OP_SHUTDOWN: u16 = 4;
/// Carries data.
pub const OP_RW: u16 = 5;
/// Announces the sender's credit.
pub const OP_CREDIT_UPDATE: u16 = 6;
/// Requests the receiver's credit.
pub const OP_CREDIT_REQUEST: u16 = 7;

/// Flag of [`OP_SHUTDOWN`]: the sender of the packet will receive nothing more.
pub const SHUTDOWN_RCV: u32 = 1;
/// Flag of [`OP_SHUTDOWN`]: the sender of the packet will send nothing more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Both directions.
pub const SHUTDOWN_BOTH: u32 = SHUTDOWN_RCV | SHUTDOWN_SEND;

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Sender's address.
    pub src_cid: u64,
    /// Receiver's address.
    pub dst_cid: u64,
    /// Sender's port.
    pub src_port: u32,
    /// Receiver's port.
    pub dst_port: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Socket type.
    pub kind: u16,
    /// `OP_*`.
    pub op: u16,
    /// Flags of [`OP_SHUTDOWN`].
    pub flags: u32,
    /// Size of the sender's receive buffer for this stream.
    pub buf_alloc: u32,
    /// Bytes of this stream that have left the sender's receive buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Parses the wire format; every bit pattern is valid.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    /// Writes the wire format.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.src_cid.to_le_bytes());
        put(8, &self.dst_cid.to_le_bytes());
        put(16, &self.src_port.to_le_bytes());
        put(20, &self.dst_port.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &self.op.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The RST that answers this packet.
    pub fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: OP_RST,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_at_the_offsets_of_the_specification() {
        let mut bytes = [0; HEADER_BYTES];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let header = Header::parse(&bytes);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!((header.dst_port, header.len), (0x1716_1514, 0x1b1a_1918));
        assert_eq!((header.kind, header.op, header.flags), (0x1d1c, 0x1f1e, 0x2322_2120));
        assert_eq!((header.buf_alloc, header.fwd_cnt), (0x2726_2524, 0x2b2a_2928));
    }

    proptest! {
        #[test]
        fn writing_what_was_read_gives_the_same_bytes(bytes in proptest::array::uniform32(any::<u8>()), tail: [u8; 12]) {
            let mut wire = [0; HEADER_BYTES];
            wire[..32].copy_from_slice(&bytes);
            wire[32..].copy_from_slice(&tail);
            prop_assert_eq!(Header::parse(&wire).to_bytes(), wire);
        }
    }
}
