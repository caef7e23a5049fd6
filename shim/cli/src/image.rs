//! `casemate image build` and `casemate image measure`.

use crate::output::print;
use anyhow::Result;
use clap::Args;
use guest_image::kernel::Kind;
use guest_image::measure::{Image, Tee};
use guest_image::{Inputs, cache};
use serde_json::json;
use std::path::{Path, PathBuf};
use vm_spec::Vcpus;

/// Builds the guest image from the programs in a directory and prints the manifest's digest.
pub fn build(programs: &Path, stage0: Option<PathBuf>, output: &Path, kernel: Kind) -> Result<()> {
    let inputs = Inputs {
        agent: programs.join("casemate-agent"),
        launcher: programs.join("casemate-launcher"),
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the launch digest of an image.
pub fn measure(options: &Measure) -> Result<()> {
    let vcpus = Vcpus::try_from(options.vcpus)?;
    let image = Image::open(&options.image)?;
    let launch = image.launch(vcpus, options.tee)?;
    if let Some(file) = &options.plan {
        cache::write_whole(file, &launch.plan()?)?;
    }
    let digest = hex::encode(launch.digest.0);
    if options.json {
        let document = json!({
            "vcpus": vcpus.get(),
            "digest": digest,
            "pages": launch.pages(),
            "hashed_bytes": launch.hashed_bytes(),
            "stage0_bytes": image.stage0_bytes(),
            "verified_bytes": image.verified_bytes(),
        });
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
    print(&digest)
}
