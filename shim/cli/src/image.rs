//! `casemate image build`.

use crate::output::print;
use anyhow::Result;
use guest_image::Inputs;
use guest_image::kernel::Kind;
use std::path::Path;

/// Builds the guest image from the programs in a directory and prints the manifest's digest.
pub fn build(programs: &Path, output: &Path, kernel: Kind) -> Result<()> {
    let inputs = Inputs {
        agent: programs.join("casemate-agent"),
        launcher: programs.join("casemate-launcher"),
        kernel,
    };
    let manifest = guest_image::build(&inputs, output)?;
    for artifact in [&manifest.kernel, &manifest.initrd] {
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
