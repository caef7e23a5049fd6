//! Runs every vector of a file and says what passed, failed and could not be run.

use crate::firmware::{FirmwareError, Launch};
use crate::kernel_hashes::Hashes;
use crate::save_areas::{self, OwnPlanError, Peer};
use crate::vectors::{Full, IdBlockVector, KernelHashes, SaveAreaVector, Sequence, Step, Vectors, contents};
use launch_measure::{ID_AUTH_BYTES, ID_AUTH_LAYOUT, IdBlock, LaunchDigest, MeasureError, Measurement, NotADigest, key_digest};
use p384::{SecretKey, ecdsa::VerifyingKey};
use sha2::{Digest, Sha256, Sha384};
use std::fs;
use std::path::Path;
use vm_spec::{LaunchPlan, Page, PageKind, VMSA_GPA};

/// Largest file beside the vectors that is read to find a firmware.
const FIRMWARE_MAX_BYTES: u64 = 16 << 20;
/// vCPUs of the plan whose save areas are compared.
const OWN_VCPUS: u8 = 2;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Not JSON, or not these vectors.
    #[error("not a list of launch vectors")]
    Form(#[from] serde_json::Error),
    /// Our own plan.
    #[error("the launch plan cannot be made")]
    Plan(#[from] OwnPlanError),
}

/// What became of each vector, by name.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Number of vectors that came out the same.
    pub passed: usize,
    /// Those that did not, with the difference.
    pub failed: Vec<String>,
    /// Those that need what is not there.
    pub skipped: Vec<String>,
}

/// Why one vector did not pass.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{what} is {found} instead of {expected}")]
    Differs { what: String, found: String, expected: String },
    #[error("{0}")]
    Vector(String),
    #[error(transparent)]
    Measure(#[from] MeasureError),
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    #[error(transparent)]
    Plan(#[from] OwnPlanError),
    #[error(transparent)]
    Hex(#[from] hex::FromHexError),
    #[error(transparent)]
    Digest(#[from] NotADigest),
    #[error("skipped: {0}")]
    Skipped(String),
}

/// Replays the vectors of `text`; firmware and keys that they name are looked for in `directory`.
pub fn replay(text: &str, directory: &Path) -> Result<Outcome, ReplayError> {
    let vectors: Vectors = serde_json::from_str(text)?;
    let own = save_areas::own_plan(OWN_VCPUS)?;
    let mut outcome = Outcome::default();
    for (name, vector) in &vectors.vmsa {
        outcome.add(format!("vmsa {name}"), save_area(name, vector, &own));
    }
    for (name, vector) in &vectors.sequences {
        outcome.add(format!("sequence {name}"), sequence(vector, &own));
        if let Some(vcpus) = layout_vcpus(name) {
            outcome.add(format!("layout of {name}"), layout(vector, vcpus));
        }
    }
    if let Some(vector) = &vectors.kernel_hashes {
        outcome.add("kernel_hashes".to_owned(), kernel_hashes(vector));
    }
    for (name, vector) in &vectors.full {
        outcome.add(format!("full {name}"), full(vector, vectors.kernel_hashes.as_ref(), directory));
    }
    if let Some(vector) = &vectors.id_block {
        outcome.add("id_block".to_owned(), id_block(vector));
        for (file, digest) in &vector.key_digests {
            outcome.add(format!("key digest of {file}"), key(&directory.join(file), digest));
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, name: String, result: Result<(), Cause>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(Cause::Skipped(why)) => self.skipped.push(format!("{name}: {why}")),
            Err(cause) => self.failed.push(format!("{name}: {cause}")),
        }
    }
}

fn same(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Result<(), Cause> {
    let (found, expected) = (found.to_string(), expected.to_string());
    if found == expected {
        return Ok(());
    }
    Err(Cause::Differs {
        what: what.into(),
        found,
        expected,
    })
}

fn save_area(name: &str, vector: &SaveAreaVector, own: &LaunchPlan) -> Result<(), Cause> {
    let page = built(name, own)?;
    let mut expected = [0; 4096];
    for (at, bytes) in &vector.nonzero {
        let bytes = hex::decode(bytes)?;
        let at = usize::try_from(at.0).unwrap_or(usize::MAX);
        let place = at.checked_add(bytes.len()).and_then(|end| expected.get_mut(at..end));
        place
            .ok_or_else(|| Cause::Vector(format!("bytes at {at:#x} are outside of the page")))?
            .copy_from_slice(&bytes);
    }
    if let Some(at) = (0..4096).find(|&at| page[at] != expected[at]) {
        same(format!("byte {at:#x}"), page[at], expected[at])?;
    }
    same("sha256", hex::encode(Sha256::digest(&page[..])), &vector.sha256)?;
    same("sha384", hex::encode(Sha384::digest(&page[..])), &vector.sha384)
}

fn built(name: &str, own: &LaunchPlan) -> Result<save_areas::AreaPage, Cause> {
    save_areas::by_name(name, own).ok_or_else(|| Cause::Vector(format!("no register state is known for the save area {name}")))
}

fn sequence(vector: &Sequence, own: &LaunchPlan) -> Result<(), Cause> {
    let mut measurement = Measurement::default();
    same("the number of digests", vector.chain.len(), vector.steps.len())?;
    for (n, (step, expected)) in vector.steps.iter().zip(&vector.chain).enumerate() {
        for page in pages(step, own)? {
            measurement.add(page.kind, page.gpa, &page.bytes)?;
        }
        same(
            format!("the digest after step {n}"),
            measurement.digest(),
            expected.parse::<LaunchDigest>()?,
        )?;
    }
    same("the digest", measurement.digest(), vector.ld.parse::<LaunchDigest>()?)
}

/// The pages of one step.
fn pages(step: &Step, own: &LaunchPlan) -> Result<Vec<Page>, Cause> {
    let kind = kind(&step.kind)?;
    if kind == PageKind::Vmsa {
        let name = step
            .vmsa
            .as_deref()
            .ok_or_else(|| Cause::Vector("a save area without a name".to_owned()))?;
        return Ok(vec![Page {
            gpa: VMSA_GPA,
            kind,
            bytes: built(name, own)?,
        }]);
    }
    let start = start(step)?;
    let length = step
        .length()
        .ok_or_else(|| Cause::Vector("a step of too many bytes, or of half pages".to_owned()))?;
    let bytes = match (&step.seed, kind) {
        (Some(seed), _) => contents(seed, length),
        (None, PageKind::Normal) => return Err(Cause::Vector("a normal page without a seed".to_owned())),
        (None, _) => vec![0; length],
    };
    Ok(bytes
        .as_chunks::<4096>()
        .0
        .iter()
        .zip((start..).step_by(4096))
        .map(|(page, gpa)| Page {
            gpa,
            kind,
            bytes: Box::new(*page),
        })
        .collect())
}

/// The step's address, below which no overflow is near.
fn start(step: &Step) -> Result<u64, Cause> {
    let start = step.gpa.ok_or_else(|| Cause::Vector("a step without an address".to_owned()))?.0;
    if start > VMSA_GPA {
        return Err(MeasureError::Address(start).into());
    }
    Ok(start)
}

fn kind(name: &str) -> Result<PageKind, Cause> {
    Ok(match name {
        "normal" => PageKind::Normal,
        "vmsa" => PageKind::Vmsa,
        "zero" => PageKind::Zero,
        "unmeasured" => PageKind::Unmeasured,
        "secrets" => PageKind::Secrets,
        "cpuid" => PageKind::Cpuid,
        other => return Err(Cause::Vector(format!("unknown page type {other}"))),
    })
}

/// vCPUs of `own_layout_Nvcpu`, a sequence with the addresses of our launch plan.
fn layout_vcpus(name: &str) -> Option<u8> {
    name.strip_prefix("own_layout_")?.strip_suffix("vcpu")?.parse().ok()
}

/// Our plan launches pages of the same types, at the same addresses, in the same order.
fn layout(vector: &Sequence, vcpus: u8) -> Result<(), Cause> {
    let plan = save_areas::own_plan(vcpus)?;
    let mut expected = Vec::new();
    for step in &vector.steps {
        let pages = step.length().unwrap_or_default() / 4096;
        let start = if step.vmsa.is_some() { VMSA_GPA } else { start(step)? };
        for gpa in (start..).step_by(4096).take(pages) {
            expected.push(format!("{:?} at {gpa:#x}", kind(&step.kind)?));
        }
    }
    let found = plan.pages.iter().map(|Page { gpa, kind, .. }| format!("{kind:?} at {gpa:#x}"));
    for (n, (found, expected)) in found.zip(&expected).enumerate() {
        same(format!("page {n}"), found, expected)?;
    }
    same("the number of pages", plan.pages.len(), expected.len())
}

fn kernel_hashes(vector: &KernelHashes) -> Result<(), Cause> {
    let hashes = hashes(vector);
    same("the table", hex::encode(hashes.to_table()), &vector.table_hex)?;
    let offset = usize::try_from(vector.page_offset.0).unwrap_or(usize::MAX);
    let page = hashes
        .to_page(offset)
        .ok_or_else(|| Cause::Vector("the table does not fit its page".to_owned()))?;
    same("sha384 of the page", hex::encode(Sha384::digest(&page[..])), &vector.page_sha384)
}

fn hashes(vector: &KernelHashes) -> Hashes {
    Hashes::new(vector.kernel.sha256(), vector.initrd.sha256(), &vector.cmdline)
}

fn full(vector: &Full, kernel_hashes: Option<&KernelHashes>, directory: &Path) -> Result<(), Cause> {
    let skipped = |why: String| Err(Cause::Skipped(why));
    let (Some(sha256), Some(arguments), Some(digest)) = (&vector.firmware_sha256, &vector.args, &vector.ld) else {
        return skipped("it names no firmware by its SHA-256".to_owned());
    };
    if arguments.mode != "SEV_SNP" {
        return skipped(format!("a launch of {}, not of SNP", arguments.mode));
    }
    let Some(image) = firmware(directory, sha256) else {
        return skipped(format!(
            "its firmware is not beside the vectors ({}, SHA-256 {sha256})",
            vector.firmware
        ));
    };
    let peer = Peer::by_name(arguments.vmm.as_deref()).ok_or_else(|| Cause::Vector("an unknown VMM".to_owned()))?;
    let launch = Launch {
        image: &image,
        peer,
        vcpus: arguments.vcpus,
        signature: arguments.vcpu_sig,
        sev_features: arguments.guest_features,
        hashes: kernel_hashes.filter(|_| arguments.kernel).map(hashes),
    };
    same("the digest", launch.measure()?, digest)
}

/// The file in `directory` with that SHA-256.
fn firmware(directory: &Path, sha256: &str) -> Option<Vec<u8>> {
    let files = fs::read_dir(directory).ok()?.flatten();
    let small = files.filter(|file| file.metadata().is_ok_and(|data| data.is_file() && data.len() <= FIRMWARE_MAX_BYTES));
    small
        .filter_map(|file| fs::read(file.path()).ok())
        .find(|bytes| hex::encode(Sha256::digest(bytes)) == sha256)
}

fn id_block(vector: &IdBlockVector) -> Result<(), Cause> {
    let digest = vector
        .id_block_hex
        .get(..96)
        .ok_or_else(|| Cause::Vector("the ID block is too short".to_owned()))?;
    let block = IdBlock {
        digest: digest.parse()?,
        family_id: [0; 16],
        image_id: [0; 16],
        guest_svn: vector.guest_svn,
        policy: vector.policy.0,
    }
    .to_bytes();
    same("the version", 1, vector.version)?;
    same("the block", hex::encode(block), &vector.id_block_hex)?;
    same("its SHA-384", hex::encode(Sha384::digest(block)), &vector.id_block_sha384)?;
    same("bytes of the authentication structure", ID_AUTH_BYTES, vector.id_auth_size)?;
    for (field, at) in ID_AUTH_LAYOUT {
        let expected = vector.id_auth_offsets.get(field);
        let expected = expected.ok_or_else(|| Cause::Vector(format!("the offset of {field} is missing")))?;
        same(format!("the offset of {field}"), at, expected)?;
    }
    Ok(())
}

/// `file` holds a private key in PEM.
fn key(file: &Path, digest: &str) -> Result<(), Cause> {
    let Ok(text) = fs::read_to_string(file) else {
        return Err(Cause::Skipped("the key is not beside the vectors".to_owned()));
    };
    let key = SecretKey::from_sec1_pem(&text).or_else(|_| text.parse());
    let key = key.map_err(|_| Cause::Vector("not a P-384 key in PEM".to_owned()))?;
    same("the digest", hex::encode(key_digest(&VerifyingKey::from(key.public_key()))), digest)
}
