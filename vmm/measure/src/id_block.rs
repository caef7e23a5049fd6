//! The ID block and its signatures (SNP firmware ABI, 8.18.2 and 8.18.3): firmware that is given them launches no guest with another
//! digest or policy, and puts the digests of the keys into the guest's reports.

use crate::digest::LaunchDigest;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey, signature::Signer};
use sha2::{Digest, Sha384};

/// Bytes of an ID block.
pub const ID_BLOCK_BYTES: usize = 96;
/// Bytes of the ID authentication structure.
pub const ID_AUTH_BYTES: usize = 4096;

/// The version of the structure's layout.
const ID_BLOCK_VERSION: u32 = 1;
/// ECDSA on P-384 with SHA-384 (SNP firmware ABI, chapter 10).
const ECDSA_P384_SHA384: u32 = 1;
/// The curve's number in keys.
const CURVE_P384: u32 = 2;
/// Bytes of each number of a signature or key, little endian.
pub(crate) const NUMBER_BYTES: usize = 72;
const KEY_BYTES: usize = 0x404;

pub(crate) const ID_KEY_ALGORITHM: usize = 0;
pub(crate) const AUTHOR_KEY_ALGORITHM: usize = 4;
pub(crate) const BLOCK_SIGNATURE: usize = 64;
pub(crate) const ID_KEY: usize = 576;
pub(crate) const ID_KEY_SIGNATURE: usize = 1664;
pub(crate) const AUTHOR_KEY: usize = 2176;

/// Offsets of the fields of the ID authentication structure that are set, with the names that other tools give them.
pub const ID_AUTH_LAYOUT: [(&str, usize); 6] = [
    ("id_key_algo", ID_KEY_ALGORITHM),
    ("auth_key_algo", AUTHOR_KEY_ALGORITHM),
    ("block_sig", BLOCK_SIGNATURE),
    ("id_key", ID_KEY),
    ("id_key_sig", ID_KEY_SIGNATURE),
    ("author_key", AUTHOR_KEY),
];

/// What the owner of a guest expects of its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// The only digest that may be launched.
    pub digest: LaunchDigest,
    /// Chosen by the owner; in the guest's reports.
    pub family_id: [u8; 16],
    /// Chosen by the owner; in the guest's reports.
    pub image_id: [u8; 16],
    /// Security version; in the guest's reports.
    pub guest_svn: u32,
    /// The only guest policy that may be launched.
    pub policy: u64,
}

impl IdBlock {
    /// The bytes that are signed, with SHA-384.
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_BYTES] {
        let mut bytes = [0; ID_BLOCK_BYTES];
        bytes[..48].copy_from_slice(&self.digest.0);
        bytes[48..64].copy_from_slice(&self.family_id);
        bytes[64..80].copy_from_slice(&self.image_id);
        bytes[80..84].copy_from_slice(&ID_BLOCK_VERSION.to_le_bytes());
        bytes[84..88].copy_from_slice(&self.guest_svn.to_le_bytes());
        bytes[88..].copy_from_slice(&self.policy.to_le_bytes());
        bytes
    }
}

/// An ID block's signature by the ID key, and the ID key's by the author key if there is one.
#[derive(Clone, Debug)]
pub struct IdAuth {
    block_signature: Signature,
    id_key: VerifyingKey,
    author: Option<(Signature, VerifyingKey)>,
}

impl IdAuth {
    /// Signs a block.
    pub fn sign(block: &IdBlock, id_key: &SigningKey, author_key: Option<&SigningKey>) -> Self {
        let public = *id_key.verifying_key();
        Self {
            block_signature: id_key.sign(&block.to_bytes()),
            id_key: public,
            author: author_key.map(|key| (key.sign(&key_bytes(&public)), *key.verifying_key())),
        }
    }

    /// The structure; without an author key its fields are zero.
    pub fn to_bytes(&self) -> Box<[u8; ID_AUTH_BYTES]> {
        let mut bytes = Box::new([0; ID_AUTH_BYTES]);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(ID_KEY_ALGORITHM, &ECDSA_P384_SHA384.to_le_bytes());
        put(BLOCK_SIGNATURE, &signature_bytes(&self.block_signature));
        put(ID_KEY, &key_bytes(&self.id_key));
        if let Some((signature, key)) = &self.author {
            put(AUTHOR_KEY_ALGORITHM, &ECDSA_P384_SHA384.to_le_bytes());
            put(ID_KEY_SIGNATURE, &signature_bytes(signature));
            put(AUTHOR_KEY, &key_bytes(key));
        }
        bytes
    }
}

/// ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of attestation reports: SHA-384 of the key in the firmware's layout.
pub fn key_digest(key: &VerifyingKey) -> [u8; 48] {
    Sha384::digest(key_bytes(key)).into()
}

/// Curve, X and Y.
fn key_bytes(key: &VerifyingKey) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..4].copy_from_slice(&CURVE_P384.to_le_bytes());
    let point = key.to_encoded_point(false);
    let coordinates = [point.x(), point.y()];
    for (number, at) in coordinates.into_iter().flatten().zip((4..).step_by(NUMBER_BYTES)) {
        put_little_endian(&mut bytes[at..at + NUMBER_BYTES], number);
    }
    bytes
}

/// R and S.
fn signature_bytes(signature: &Signature) -> [u8; 2 * NUMBER_BYTES] {
    let mut bytes = [0; 2 * NUMBER_BYTES];
    let (r, s) = signature.split_bytes();
    put_little_endian(&mut bytes[..NUMBER_BYTES], &r);
    put_little_endian(&mut bytes[NUMBER_BYTES..], &s);
    bytes
}

/// A number in big-endian order, to the start of a longer field of zeros.
fn put_little_endian(field: &mut [u8], number: &[u8]) {
    for (to, from) in field.iter_mut().zip(number.iter().rev()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p384::ecdsa::signature::Verifier;
    use p384::{EncodedPoint, FieldBytes};

    const BLOCK: IdBlock = IdBlock {
        digest: LaunchDigest([0x11; 48]),
        family_id: [0x22; 16],
        image_id: [0x33; 16],
        guest_svn: 0x4444_4444,
        policy: 0x5555_5555_5555_5555,
    };

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 48]).unwrap()
    }

    /// A number of the structure, back in big-endian order.
    fn number(bytes: &[u8]) -> FieldBytes {
        assert!(bytes[48..NUMBER_BYTES].iter().all(|&byte| byte == 0));
        bytes[..48].iter().rev().copied().collect()
    }

    fn read_key(bytes: &[u8]) -> VerifyingKey {
        assert_eq!(bytes[..4], [2, 0, 0, 0]);
        let point = EncodedPoint::from_affine_coordinates(&number(&bytes[4..]), &number(&bytes[4 + NUMBER_BYTES..]), false);
        VerifyingKey::from_encoded_point(&point).unwrap()
    }

    fn read_signature(bytes: &[u8]) -> Signature {
        Signature::from_scalars(number(bytes), number(&bytes[NUMBER_BYTES..])).unwrap()
    }

    #[test]
    fn each_field_of_the_block_has_its_place() {
        let bytes = BLOCK.to_bytes();
        assert!(bytes[..48].iter().all(|&byte| byte == 0x11));
        assert_eq!((&bytes[48..64], &bytes[64..80]), (&[0x22; 16][..], &[0x33; 16][..]));
        assert_eq!(bytes[80..], *b"\x01\0\0\0\x44\x44\x44\x44\x55\x55\x55\x55\x55\x55\x55\x55");
    }

    #[test]
    fn the_firmware_can_check_both_signatures_with_the_keys_beside_them() {
        let auth = IdAuth::sign(&BLOCK, &key(1), Some(&key(2))).to_bytes();
        assert_eq!(auth[..8], [1, 0, 0, 0, 1, 0, 0, 0]);
        let (id_key, author_key) = (read_key(&auth[ID_KEY..]), read_key(&auth[AUTHOR_KEY..]));
        assert_eq!((id_key, author_key), (*key(1).verifying_key(), *key(2).verifying_key()));
        let block_signature = read_signature(&auth[BLOCK_SIGNATURE..]);
        id_key.verify(&BLOCK.to_bytes(), &block_signature).unwrap();
        let changed = IdBlock { policy: 0, ..BLOCK };
        assert!(id_key.verify(&changed.to_bytes(), &block_signature).is_err());
        let signed = &auth[ID_KEY..ID_KEY + KEY_BYTES];
        author_key.verify(signed, &read_signature(&auth[ID_KEY_SIGNATURE..])).unwrap();
        assert_eq!(key_digest(&id_key)[..], Sha384::digest(signed)[..]);
    }

    #[test]
    fn without_an_author_key_its_fields_are_zero() {
        let auth = IdAuth::sign(&BLOCK, &key(1), None).to_bytes();
        assert!(auth[AUTHOR_KEY_ALGORITHM..BLOCK_SIGNATURE].iter().all(|&byte| byte == 0));
        assert!(auth[ID_KEY + KEY_BYTES..].iter().all(|&byte| byte == 0));
    }
}
