//! The table of certificates that a host hands to its guests (GHCB specification, SNP Extended Guest Request): entries of GUID, offset and
//! length up to one of zeros, then the certificates.

/// 63da758d-e664-4564-adc5-f4b93be8accd
pub const VCEK: [u8; 16] = guid(0x63da_758d, 0xe664, 0x4564, 0xadc5_f4b9_3be8_accd);
/// 4ab7b379-bbac-4fe4-a02f-05aef327c782
pub const ASK: [u8; 16] = guid(0x4ab7_b379, 0xbbac, 0x4fe4, 0xa02f_05ae_f327_c782);
/// c0b406a4-a803-4952-9743-3fb6014cd0ae
pub const ARK: [u8; 16] = guid(0xc0b4_06a4, 0xa803, 0x4952, 0x9743_3fb6_014c_d0ae);

const ENTRY_BYTES: usize = 24;

/// The first three numbers little endian, as in UEFI.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let number =
        (first.swap_bytes() as u128) << 96 | (second.swap_bytes() as u128) << 80 | (third.swap_bytes() as u128) << 64 | rest as u128;
    number.to_be_bytes()
}

/// A table of these certificates.
pub fn of(certificates: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut at = (certificates.len() + 1) * ENTRY_BYTES;
    let mut table = Vec::new();
    for (guid, bytes) in certificates {
        table.extend(guid);
        table.extend((at as u32).to_le_bytes());
        table.extend((bytes.len() as u32).to_le_bytes());
        at += bytes.len();
    }
    table.extend([0; ENTRY_BYTES]);
    for (_, bytes) in certificates {
        table.extend(*bytes);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_point_to_their_certificates() {
        let table = of(&[(VCEK, b"vcek"), (ARK, b"root")]);
        let (entries, certificates) = table.split_at(3 * ENTRY_BYTES);
        assert_eq!(
            entries[..20],
            *b"\x8d\x75\xda\x63\x64\xe6\x64\x45\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd\x48\0\0\0"
        );
        assert_eq!(
            entries[24..44],
            *b"\xa4\x06\xb4\xc0\x03\xa8\x52\x49\x97\x43\x3f\xb6\x01\x4c\xd0\xae\x4c\0\0\0"
        );
        assert_eq!((entries[20], entries[44], &entries[48..]), (4, 4, &[0; 24][..]));
        assert_eq!(certificates, b"vcekroot");
    }
}
