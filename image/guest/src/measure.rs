//! The launch of a guest image under SEV-SNP: the pages that firmware measures, and the digest that they have.

use crate::sha256_file;
use anyhow::{Context, Result, bail, ensure};
use boot_manifest::{BootPage, LoadMap, Manifest as BootManifest, Mode, launch_area::STAGE0_MAX_BYTES};
use guest_manifest::{Artifact, FILE_NAME, LaunchDigest, Manifest};
pub use launch_measure::SignedId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use vm_spec::{ElfHeaders, LaunchPlan, Page, Stage0, Vcpus, layout::PAGE_BYTES};

/// Numbers of vCPUs whose digests are in the manifest.
pub const VCPUS: RangeInclusive<u8> = 1..=16;
/// Longest manifest that is read.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// What measures the guest; the digests differ, because the mode is in a measured page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tee {
    /// SEV-SNP firmware.
    Snp,
    /// The VMM, with a test key.
    Simulated,
}

impl FromStr for Tee {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "snp" => Ok(Self::Snp),
            "simulated" => Ok(Self::Simulated),
            _ => bail!("unknown TEE {text:?}: `snp` or `simulated`"),
        }
    }
}

/// A guest image whose files are those of its manifest.
pub struct Image {
    manifest: Manifest,
    stage0: Vec<u8>,
    load: LoadMap,
}

/// A guest's launch.
pub struct Launch {
    /// MEASUREMENT of the guest's reports.
    pub digest: LaunchDigest,
    /// In the order of measurement.
    pages: Vec<Page>,
}

impl Image {
    /// Reads the image in `directory`.
    ///
    /// # Errors
    /// A file cannot be read, is not that of the manifest, or the image has no stage0.
    pub fn open(directory: &Path) -> Result<Self> {
        let file = directory.join(FILE_NAME);
        let text = read(&file, MANIFEST_MAX_BYTES)?;
        let manifest = Manifest::from_json(&text).with_context(|| format!("cannot use {}", file.display()))?;
        for expected in [&manifest.kernel, &manifest.initrd] {
            let path = path(directory, expected)?;
            same(&path, sha256_file(&path)?, expected)?;
        }
        let stage0 = stage0(directory, &manifest)?;
        let load = load_map(directory, &manifest)?;
        Ok(Self { manifest, stage0, load })
    }

    /// The launch of a guest with so many vCPUs.
    ///
    /// # Errors
    /// The image has no launch plan, or its manifest names another digest.
    pub fn launch(&self, vcpus: Vcpus, tee: Tee) -> Result<Launch> {
        let launch = launch(&self.manifest, &self.stage0, self.load, vcpus, tee)?;
        if let (Tee::Snp, Some(named)) = (tee, self.manifest.launch_digests.get(&vcpus.get())) {
            ensure!(
                *named == launch.digest,
                "{FILE_NAME} names {} as the launch digest for {} vCPUs, and this version measures {}: build the image again",
                hex::encode(named.0),
                vcpus.get(),
                hex::encode(launch.digest.0)
            );
        }
        Ok(launch)
    }

    /// Bytes of stage0's program.
    pub fn stage0_bytes(&self) -> u64 {
        self.stage0.len() as u64
    }

    /// Bytes of kernel and initramfs, which stage0 copies and hashes.
    pub fn verified_bytes(&self) -> u64 {
        self.manifest.kernel.bytes.saturating_add(self.manifest.initrd.bytes)
    }
}

impl Launch {
    /// Number of pages that are measured.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Bytes of those pages whose contents are measured.
    pub fn hashed_bytes(&self) -> u64 {
        let pages = self.pages.iter().filter(|page| page.kind.measures_contents());
        pages.count() as u64 * PAGE_BYTES
    }

    /// The launch as an IGVM file, and the digest that it has where loaders take pages without contents for normal ones (see
    /// `launch_measure::igvm_file`).
    pub fn igvm(&self, policy: u64, id: Option<SignedId<'_>>) -> Result<(Vec<u8>, LaunchDigest)> {
        let file = launch_measure::igvm_file(&self.pages, policy, id).context("cannot write an IGVM file")?;
        let digest = launch_measure::measure_igvm(&self.pages).context("the image's pages cannot be launched")?;
        Ok((file, LaunchDigest(digest.0)))
    }

    /// The pages for other tools, each as a line of JSON (see `launch_measure::write_plan`).
    pub fn plan(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        launch_measure::write_plan(&self.pages, &mut text).context("cannot write the launch plan")?;
        Ok(text)
    }
}

/// Launch digests of the image in `directory`, whose kernel and initramfs are those of `manifest`.
pub(crate) fn digests(directory: &Path, manifest: &Manifest) -> Result<BTreeMap<u8, LaunchDigest>> {
    let (stage0, load) = (stage0(directory, manifest)?, load_map(directory, manifest)?);
    VCPUS
        .map(|vcpus| Ok((vcpus, launch(manifest, &stage0, load, Vcpus::try_from(vcpus)?, Tee::Snp)?.digest)))
        .collect()
}

fn launch(manifest: &Manifest, stage0: &[u8], load: LoadMap, vcpus: Vcpus, tee: Tee) -> Result<Launch> {
    let boot_page = BootPage {
        manifest: BootManifest {
            mode: match tee {
                Tee::Snp => Mode::Snp,
                Tee::Simulated => Mode::Simulated,
            },
            kernel_sha256: manifest.kernel.sha256,
            initrd_sha256: manifest.initrd.sha256,
        },
        load,
        cmdline: &manifest.cmdline,
    };
    let plan = LaunchPlan::verified(vcpus, &boot_page, Stage0::try_from(stage0)?).context("the image has no launch plan")?;
    let digest = launch_measure::measure(&plan.pages).context("the image's pages cannot be launched")?;
    Ok(Launch {
        digest: LaunchDigest(digest.0),
        pages: plan.pages,
    })
}

/// How stage0 loads the image's kernel.
fn load_map(directory: &Path, manifest: &Manifest) -> Result<LoadMap> {
    let path = path(directory, &manifest.kernel)?;
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let headers = ElfHeaders::read(|buffer, offset| file.read_exact_at(buffer, offset));
    headers
        .and_then(|headers| headers.load_map(manifest.kernel.bytes, manifest.initrd.bytes))
        .with_context(|| format!("stage0 cannot load {}", path.display()))
}

fn stage0(directory: &Path, manifest: &Manifest) -> Result<Vec<u8>> {
    let expected = manifest
        .stage0
        .as_ref()
        .with_context(|| format!("the guest image in {} has no stage0, so nothing measures it", directory.display()))?;
    let path = path(directory, expected)?;
    let program = read(&path, STAGE0_MAX_BYTES as u64)?;
    same(&path, Sha256::digest(&program).into(), expected)?;
    Ok(program)
}

/// The path of a file in the image's own directory.
fn path(directory: &Path, artifact: &Artifact) -> Result<PathBuf> {
    let name = &artifact.file;
    let mut components = Path::new(name).components();
    ensure!(
        matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)),
        "{FILE_NAME} names {name:?}, which is no plain file name"
    );
    Ok(directory.join(name))
}

fn same(path: &Path, sha256: [u8; 32], expected: &Artifact) -> Result<()> {
    ensure!(
        sha256 == expected.sha256,
        "{} is not the file that {FILE_NAME} names: build the image again",
        path.display()
    );
    Ok(())
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let describe = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(describe)?;
    file.take(most + 1).read_to_end(&mut bytes).with_context(describe)?;
    ensure!(bytes.len() as u64 <= most, "{} is longer than {most} bytes", path.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests;
