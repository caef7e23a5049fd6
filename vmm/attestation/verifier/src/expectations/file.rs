//! The requirements file as it is written, in TOML or JSON; only [`super::Expectations`] made of it is used.

use super::{ExpectationError, Expectations, GuestPolicy, Levels, Mitigations, PlatformInfo, Revocation, Wanted, digest};
use crate::information;
use attestation::{Part, Product, SigningKey};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    products: Option<Vec<String>>,
    signing_keys: Option<Vec<String>>,
    revocation: Revocation,
    allow_masked_chip_id: bool,
    measurements: Vec<String>,
    host_data: Vec<String>,
    report_data: Vec<String>,
    id_key_digests: Vec<String>,
    minimum_tcb: BTreeMap<String, FileLevels>,
    guest_policy: GuestPolicy,
    platform_info: FilePlatformInfo,
    mitigations: Mitigations,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct FilePlatformInfo {
    required: Vec<String>,
    forbidden: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct FileLevels {
    fmc: Option<u8>,
    boot_loader: Option<u8>,
    tee: Option<u8>,
    snp: Option<u8>,
    microcode: Option<u8>,
}

impl TryFrom<File> for Expectations {
    type Error = ExpectationError;

    fn try_from(file: File) -> Result<Self, ExpectationError> {
        let defaults = Self::default();
        let products = file
            .products
            .map(|names| names.iter().map(|name| product(name)).collect::<Result<_, _>>());
        let signing_keys = file
            .signing_keys
            .map(|names| names.iter().map(|name| signing_key(name)).collect::<Result<_, _>>());
        let minimum = file.minimum_tcb.into_iter().map(|(name, levels)| -> Result<_, ExpectationError> {
            let product = product(&name)?;
            Ok((product, Levels::new(product, levels.named())?))
        });
        let id_keys = file.id_key_digests.iter().map(|text| digest("id_key_digests", text));
        Ok(Self {
            products: products.transpose()?.unwrap_or(defaults.products),
            signing_keys: signing_keys.transpose()?.unwrap_or(defaults.signing_keys),
            revocation: file.revocation,
            allow_masked_chip_id: file.allow_masked_chip_id,
            minimum_tcb: minimum.collect::<Result<_, _>>()?,
            platform_info: PlatformInfo {
                required: information(&file.platform_info.required)?,
                forbidden: information(&file.platform_info.forbidden)?,
            },
            mitigations: file.mitigations,
            guest_policy: file.guest_policy,
            measurements: Wanted::parse("measurements", &file.measurements)?,
            host_data: Wanted::parse("host_data", &file.host_data)?,
            report_data: Wanted::parse("report_data", &file.report_data)?,
            id_key_digests: id_keys.collect::<Result<_, _>>()?,
            // Whoever may write the file must not thereby become a root: see `Expectations::trust`.
            roots: defaults.roots,
        })
    }
}

impl FileLevels {
    fn named(&self) -> BTreeMap<Part, u8> {
        let all = [
            (Part::Fmc, self.fmc),
            (Part::BootLoader, self.boot_loader),
            (Part::Tee, self.tee),
            (Part::Snp, self.snp),
            (Part::Microcode, self.microcode),
        ];
        all.into_iter().filter_map(|(part, level)| Some((part, level?))).collect()
    }
}

fn product(name: &str) -> Result<Product, ExpectationError> {
    let known = Product::ALL.into_iter().find(|product| product.name().eq_ignore_ascii_case(name));
    known.ok_or_else(|| ExpectationError::Product(name.to_owned()))
}

fn signing_key(name: &str) -> Result<SigningKey, ExpectationError> {
    match name {
        "vcek" => Ok(SigningKey::Vcek),
        "vlek" => Ok(SigningKey::Vlek),
        other => Err(ExpectationError::SigningKey(other.to_owned())),
    }
}

fn information(names: &[String]) -> Result<u64, ExpectationError> {
    let bit = |name: &String| information::bit(name).ok_or_else(|| ExpectationError::PlatformInfo(name.clone()));
    names.iter().map(bit).try_fold(0, |bits, bit| Ok(bits | bit?))
}
