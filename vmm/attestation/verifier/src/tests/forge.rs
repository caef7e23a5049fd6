//! A test root and what it signs: chains, revocation lists and reports of any product and version, each part of which a test can spoil.

use crate::{Check, Collateral, Expectations, Levels, Revocation, Time, Wanted, verify};
use attestation::{Part, Product, REPORT_BYTES, Report, SIGNED_BYTES, SigningKey};
use p384::ecdsa::signature::hazmat::PrehashSigner;
use rsa::pkcs1::{EncodeRsaPublicKey, RsaPssParams};
use rsa::rand_core::{CryptoRng, Error, RngCore};
use rsa::{Pss, RsaPrivateKey};
use sha2::{Digest, Sha256, Sha384};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::der::asn1::{Any, BitString, Ia5StringRef, Null, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::{Decode, Encode, flagset::FlagSet};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time as X509Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};

/// When reports are verified, in seconds since 1970.
pub const NOW: u64 = 1_700_000_000;
const YEAR: u64 = 365 * 24 * 3600;

/// Numbers from a fixed seed: keys of tests only.
struct Seeded(fastrand::Rng);

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        self.0.u32(..)
    }
    fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes);
        Ok(())
    }
}
impl CryptoRng for Seeded {}

/// Keys of root, authority, and of somebody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    Root,
    Authority,
    Stranger,
}

fn key(signer: Signer) -> &'static RsaPrivateKey {
    static KEYS: OnceLock<[RsaPrivateKey; 3]> = OnceLock::new();
    // Half of AMD's size, because making keys takes long.
    let keys = KEYS.get_or_init(|| [1, 2, 3].map(|seed| RsaPrivateKey::new(&mut Seeded(fastrand::Rng::with_seed(seed)), 2048).unwrap()));
    &keys[signer as usize]
}

fn endorsement_key() -> p384::ecdsa::SigningKey {
    p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap()
}

/// One certificate of the chain.
#[derive(Clone)]
pub struct Cert {
    pub name: String,
    pub serial: u8,
    pub extensions: Vec<(String, Vec<u8>, bool)>,
    pub valid: (u64, u64),
    pub signer: Signer,
    pub salt: u8,
}

/// A revocation list.
#[derive(Clone)]
pub struct List {
    pub issued: u64,
    pub due: Option<u64>,
    pub serials: Vec<u8>,
    pub signer: Signer,
    pub critical: bool,
}

/// Everything that a verification depends on; as made, all checks pass.
#[derive(Clone)]
pub struct Case {
    pub raw: [u8; REPORT_BYTES],
    /// Bits to flip after signing: offset and mask.
    pub flip: Option<(usize, u8)>,
    pub root: Option<Cert>,
    pub authority: Option<Cert>,
    pub leaf: Option<Cert>,
    pub lists: Vec<List>,
    pub now: u64,
    pub expectations: Expectations,
}

pub fn part_oid(part: Part) -> String {
    let number = match part {
        Part::BootLoader => 1,
        Part::Tee => 2,
        Part::Snp => 3,
        Part::Microcode => 8,
        Part::Fmc => 9,
    };
    format!("1.3.6.1.4.1.3704.1.3.{number}")
}

pub const HARDWARE_ID: &str = "1.3.6.1.4.1.3704.1.4";
pub const PRODUCT_NAME: &str = "1.3.6.1.4.1.3704.1.2";

impl Case {
    pub fn new(product: Product, version: u32) -> Self {
        let levels: BTreeMap<Part, u8> = product.tcb_parts().iter().map(|(part, at)| (*part, 0x7e + *at as u8)).collect();
        let mut raw = [0; REPORT_BYTES];
        raw[..4].copy_from_slice(&version.to_le_bytes());
        raw[8..16].copy_from_slice(&0x3_0000_u64.to_le_bytes());
        raw[0x34] = 1;
        raw[0x40] = 0b10_0101;
        raw[0x50..0x90].fill(0xda);
        raw[0x90..0xc0].fill(0x3e);
        raw[0xc0..0xe0].fill(0x57);
        raw[0xe0..0x110].fill(0x1d);
        for tcb in [0x38, 0x180, 0x1e0, 0x1f0] {
            for (part, at) in product.tcb_parts() {
                raw[tcb + at] = levels[part];
            }
        }
        if version >= 3 {
            raw[0x188..0x18b].copy_from_slice(match product {
                Product::Milan => &[0x19, 0x01, 1],
                Product::Genoa => &[0x19, 0x11, 1],
                Product::Turin => &[0x1a, 0x02, 1],
                Product::Venice => &[0x1a, 0x50, 0],
            });
        }
        if version >= 5 {
            raw[0x1f8] = 0b11;
            raw[0x200] = 0b111;
        }
        let id = vec![0xc1; product.chip_id_bytes()];
        raw[0x1a0..0x1a0 + id.len()].copy_from_slice(&id);

        let name = Ia5StringRef::new(product.name()).unwrap().to_der().unwrap();
        let mut extensions = vec![(PRODUCT_NAME.to_owned(), name, false), (HARDWARE_ID.to_owned(), id, false)];
        extensions.extend(levels.iter().map(|(part, level)| (part_oid(*part), level.to_der().unwrap(), false)));
        let cert = |name: String, serial, extensions, signer| Cert {
            name,
            serial,
            extensions,
            valid: (NOW - YEAR, NOW + YEAR),
            signer,
            salt: 48,
        };
        let expectations = Expectations {
            products: [product].into(),
            minimum_tcb: [(product, Levels::new(product, levels).unwrap())].into(),
            measurements: Wanted::OneOf([[0x3e; 48]].into()),
            host_data: Wanted::OneOf([[0x57; 32]].into()),
            report_data: Wanted::OneOf([[0xda; 64]].into()),
            roots: [(product, [root_digest()].into())].into(),
            ..Expectations::default()
        };
        Self {
            raw,
            flip: None,
            root: Some(cert(format!("ARK-{product}"), 1, issuer_extensions(None), Signer::Root)),
            authority: Some(cert(format!("SEV-{product}"), 2, issuer_extensions(Some(0)), Signer::Root)),
            leaf: Some(cert("SEV-VCEK".to_owned(), 0, extensions, Signer::Authority)),
            lists: vec![List {
                issued: NOW - 100,
                due: Some(NOW + 100),
                serials: vec![77],
                signer: Signer::Root,
                critical: false,
            }],
            now: NOW,
            expectations,
        }
    }

    /// The same with a loaded key, which is not the chip's.
    pub fn loaded(mut self) -> Self {
        self.raw[0x48] |= 1 << 2;
        self.expectations.signing_keys = [SigningKey::Vlek].into();
        let leaf = self.leaf.as_mut().unwrap();
        leaf.name = "SEV-VLEK".to_owned();
        leaf.extensions.retain(|(oid, ..)| oid != HARDWARE_ID);
        let authority = self.authority.as_mut().unwrap();
        authority.name = authority.name.replace("SEV-", "SEV-VLEK-");
        self
    }

    pub fn leaf(&mut self) -> &mut Cert {
        self.leaf.as_mut().unwrap()
    }

    /// Changes the value of an extension of the endorsement key.
    pub fn set_extension(&mut self, oid: &str, value: Vec<u8>) {
        let extension = self.leaf().extensions.iter_mut().find(|(known, ..)| known == oid).unwrap();
        extension.1 = value;
    }

    /// The signed report.
    pub fn report(&self) -> Vec<u8> {
        let mut raw = self.raw;
        let digest = Sha384::digest(&raw[..SIGNED_BYTES]);
        let signature: p384::ecdsa::Signature = endorsement_key().sign_prehash(&digest).unwrap();
        let (r, s) = signature.split_bytes();
        for (at, number) in [(0x2a0, r), (0x2e8, s)] {
            raw[at..at + 48].copy_from_slice(&number.iter().rev().copied().collect::<Vec<_>>());
        }
        if let Some((at, mask)) = self.flip {
            raw[at] ^= mask;
        }
        raw.to_vec()
    }

    fn name_of<'a>(cert: &'a Option<Cert>, otherwise: &'a str) -> &'a str {
        cert.as_ref().map_or(otherwise, |cert| &cert.name)
    }

    pub fn root_certificate(&self) -> Vec<u8> {
        let name = Self::name_of(&self.root, "ARK-?");
        certificate(self.root.as_ref().unwrap(), name, rsa_info(Signer::Root))
    }

    pub fn authority_certificate(&self) -> Vec<u8> {
        let issuer = Self::name_of(&self.root, "ARK-?");
        certificate(self.authority.as_ref().unwrap(), issuer, rsa_info(Signer::Authority))
    }

    pub fn leaf_certificate(&self) -> Vec<u8> {
        let issuer = Self::name_of(&self.authority, "SEV-?");
        certificate(self.leaf.as_ref().unwrap(), issuer, p384_info())
    }

    /// The endorsement key's certificate with one more extension.
    pub fn leaf_certificate_with(mut self, value: Vec<u8>) -> Vec<u8> {
        self.leaf().extensions.push(("1.2.3".to_owned(), value, false));
        self.leaf_certificate()
    }

    /// The first of its lists.
    pub fn revocation_list(&self) -> Vec<u8> {
        revocation_list(&self.lists[0], Self::name_of(&self.root, "ARK-?"))
    }

    pub fn collateral(&self) -> Collateral {
        let mut collateral = Collateral::default();
        let certificates = [
            self.root.as_ref().map(|_| self.root_certificate()),
            self.authority.as_ref().map(|_| self.authority_certificate()),
            self.leaf.as_ref().map(|_| self.leaf_certificate()),
        ];
        let issuer = Self::name_of(&self.root, "ARK-?");
        let lists = self.lists.iter().map(|list| revocation_list(list, issuer));
        for der in certificates.into_iter().flatten().chain(lists) {
            collateral.add(&der).unwrap();
        }
        collateral
    }

    pub fn checks(&self) -> Vec<Check> {
        let report = Report::parse(&self.report()).unwrap();
        verify(&report, &self.collateral(), Time::from_unix(self.now), &self.expectations)
    }

    /// Names of the checks that fail.
    pub fn failed(&self) -> Vec<&'static str> {
        self.checks().iter().filter(|check| !check.passed).map(|check| check.name).collect()
    }

    pub fn revocation(mut self, demand: Revocation) -> Self {
        self.expectations.revocation = demand;
        self
    }
}

pub fn issuer_extensions(below: Option<u8>) -> Vec<(String, Vec<u8>, bool)> {
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint: below,
    };
    let usage = KeyUsage(FlagSet::from(KeyUsages::KeyCertSign));
    vec![
        ("2.5.29.19".to_owned(), constraints.to_der().unwrap(), true),
        ("2.5.29.15".to_owned(), usage.to_der().unwrap(), true),
    ]
}

fn root_digest() -> [u8; 32] {
    Sha256::digest(rsa_info(Signer::Root).to_der().unwrap()).into()
}

fn rsa_info(signer: Signer) -> SubjectPublicKeyInfoOwned {
    let key = key(signer).to_public_key().to_pkcs1_der().unwrap();
    SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
            parameters: Some(Any::from(Null)),
        },
        subject_public_key: BitString::from_bytes(key.as_bytes()).unwrap(),
    }
}

fn p384_info() -> SubjectPublicKeyInfoOwned {
    let point = endorsement_key().verifying_key().to_encoded_point(false);
    SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"),
            parameters: Some(Any::from(&ObjectIdentifier::new_unwrap("1.3.132.0.34"))),
        },
        subject_public_key: BitString::from_bytes(point.as_bytes()).unwrap(),
    }
}

fn pss(salt: u8) -> AlgorithmIdentifierOwned {
    let parameters = RsaPssParams::new::<Sha384>(salt).to_der().unwrap();
    AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10"),
        parameters: Some(Any::from_der(&parameters).unwrap()),
    }
}

fn sign(signer: Signer, salt: u8, message: &[u8]) -> BitString {
    let scheme = Pss::new_with_salt::<Sha384>(usize::from(salt));
    let mut rng = Seeded(fastrand::Rng::with_seed(4));
    let signature = key(signer).sign_with_rng(&mut rng, scheme, &Sha384::digest(message)).unwrap();
    BitString::from_bytes(&signature).unwrap()
}

fn time(seconds: u64) -> X509Time {
    X509Time::UtcTime(UtcTime::from_unix_duration(Duration::from_secs(seconds)).unwrap())
}

fn common_name(name: &str) -> Name {
    Name::from_str(&format!("CN={name}")).unwrap()
}

fn certificate(cert: &Cert, issuer: &str, subject_public_key_info: SubjectPublicKeyInfoOwned) -> Vec<u8> {
    let extensions = cert.extensions.iter().map(|(oid, value, critical)| Extension {
        extn_id: ObjectIdentifier::from_str(oid).unwrap(),
        critical: *critical,
        extn_value: OctetString::new(value.clone()).unwrap(),
    });
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&[cert.serial]).unwrap(),
        signature: pss(cert.salt),
        issuer: common_name(issuer),
        validity: Validity {
            not_before: time(cert.valid.0),
            not_after: time(cert.valid.1),
        },
        subject: common_name(&cert.name),
        subject_public_key_info,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions.collect()),
    };
    let signature = sign(cert.signer, cert.salt, &tbs_certificate.to_der().unwrap());
    let certificate = Certificate {
        tbs_certificate,
        signature_algorithm: pss(cert.salt),
        signature,
    };
    certificate.to_der().unwrap()
}

fn revocation_list(list: &List, issuer: &str) -> Vec<u8> {
    let entries = list.serials.iter().map(|serial| RevokedCert {
        serial_number: SerialNumber::new(&[*serial]).unwrap(),
        revocation_date: time(list.issued),
        crl_entry_extensions: None,
    });
    let critical = Extension {
        extn_id: ObjectIdentifier::new_unwrap("2.5.29.28"),
        critical: true,
        extn_value: OctetString::new([0x30, 0]).unwrap(),
    };
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: pss(48),
        issuer: common_name(issuer),
        this_update: time(list.issued),
        next_update: list.due.map(time),
        revoked_certificates: Some(entries.collect()),
        crl_extensions: list.critical.then(|| vec![critical]),
    };
    let signature = sign(list.signer, 48, &tbs_cert_list.to_der().unwrap());
    let list = CertificateList {
        tbs_cert_list,
        signature_algorithm: pss(48),
        signature,
    };
    list.to_der().unwrap()
}
