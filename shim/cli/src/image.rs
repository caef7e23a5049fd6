//! `casemate image build` and `casemate image measure`.

use crate::input;
use crate::output::print;
use anyhow::{Context, Result};
use clap::Args;
use guest_image::LaunchDigest;
use guest_image::kernel::Kind;
use guest_image::measure::{Image, Launch, SignedId, Tee};
use guest_image::{Inputs, cache};
use serde_json::json;
use std::path::{Path, PathBuf};
use vm_spec::Vcpus;

/// Builds the guest image from the programs in a directory and prints the manifest's digest.
pub fn build(programs: &Path, stage0: Option<PathBuf>, output: &Path, kernel: Kind) -> Result<()> {
    let inputs = Inputs {
        agent: programs.join("casemate-agent"),
        launcher: programs.join("casemate-launcher"),
        puller: programs.join("casemate-puller"),
        pause: programs.join("casemate-pause"),
        stage0,
        kernel,
    };
    let manifest = guest_image::build(&inputs, output)?;
    for artifact in [Some(&manifest.kernel), Some(&manifest.initrd), manifest.stage0.as_ref()]
        .into_iter()
        .flatten()
    {
        eprintln!(
            "    {:<15} {:>9} bytes  sha256 {}",
            artifact.file,
            artifact.bytes,
            hex::encode(artifact.sha256)
        );
    }
    print(&hex::encode(guest_image::sha256_file(&output.join("manifest.json"))?))?;
    Ok(())
}

/// What to measure.
#[derive(Args)]
pub struct Measure {
    /// Directory of the guest image
    #[arg(default_value = "/usr/local/share/casemate")]
    image: PathBuf,
    /// Number of the guest's vCPUs
    #[arg(long, default_value_t = 1)]
    vcpus: u8,
    /// `snp`, or `simulated`: what the VMM computes in a guest with simulated reports
    #[arg(long, default_value = "snp")]
    tee: Tee,
    /// Write the pages here, in the order of measurement: on each line a JSON object with type, gpa and bytes
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Write the launch here as an IGVM file, for other VMMs and their tools
    #[arg(long)]
    igvm: Option<PathBuf>,
    /// Guest policy of the IGVM file
    #[arg(long, default_value = "0x30000", value_parser = number, requires = "igvm")]
    guest_policy: u64,
    /// ID block of the IGVM file: 96 bytes (SNP firmware ABI, 8.18.2)
    #[arg(long, requires_all = ["igvm", "id_auth"])]
    id_block: Option<PathBuf>,
    /// Keys and signatures of the ID block: 4096 bytes (8.18.3)
    #[arg(long, requires = "id_block")]
    id_auth: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A number of 64 bits, decimal or with `0x`.
fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// Writes the IGVM file, and returns the digest of its launch in other VMMs.
fn export(launch: &Launch, file: &Path, options: &Measure) -> Result<LaunchDigest> {
    let block = options.id_block.as_deref().map(exactly).transpose()?;
    let authentication = options.id_auth.as_deref().map(exactly).transpose()?;
    let id = block.as_deref().zip(authentication.as_deref());
    let id = id.map(|(block, authentication)| SignedId { block, authentication });
    let (bytes, digest) = launch.igvm(options.guest_policy, id)?;
    cache::write_whole(file, &bytes)?;
    Ok(digest)
}

/// A file of `N` bytes.
fn exactly<const N: usize>(path: &Path) -> Result<Box<[u8; N]>> {
    let bytes = input::bytes(path, N as u64)?.into_boxed_slice();
    let length = bytes.len();
    let exact = bytes.try_into().ok();
    exact.with_context(|| format!("{} has {length} bytes; {N} are needed", path.display()))
}

/// Prints the launch digest of an image.
pub fn measure(options: &Measure) -> Result<()> {
    let vcpus = Vcpus::try_from(options.vcpus)?;
    let image = Image::open(&options.image)?;
    let launch = image.launch(vcpus, options.tee)?;
    if let Some(file) = &options.plan {
        cache::write_whole(file, &launch.plan()?)?;
    }
    let igvm = options.igvm.as_deref().map(|file| export(&launch, file, options)).transpose()?;
    let igvm = igvm.map(|digest| hex::encode(digest.0));
    let digest = hex::encode(launch.digest.0);
    if options.json {
        let mut document = json!({
            "vcpus": vcpus.get(),
            "digest": digest,
            "pages": launch.pages(),
            "hashed_bytes": launch.hashed_bytes(),
            "stage0_bytes": image.stage0_bytes(),
            "verified_bytes": image.verified_bytes(),
        });
        if let Some(igvm) = igvm {
            document["igvm_digest"] = igvm.into();
        }
        return print(&document.to_string());
    }
    let figures = [
        ("measured pages", launch.pages() as u64),
        ("bytes of them that are hashed", launch.hashed_bytes()),
        ("bytes of stage0", image.stage0_bytes()),
        ("bytes of kernel and initramfs, which stage0 verifies", image.verified_bytes()),
    ];
    for (name, figure) in figures {
        eprintln!("    {figure:>9} {name}");
    }
    if let Some(igvm) = igvm {
        eprintln!("    {igvm} digest of the IGVM file in VMMs that launch its empty pages as normal ones (QEMU, OpenVMM)");
    }
    print(&digest)
}
