//! The bundle of a sandbox without a container: containerd makes it empty, and the shim writes what CRI would have.

use crate::bundle::BundleError;
use pod_config::{Place, PodFiles, PodSandboxConfig, document};
use protobuf::{Message, well_known_types::any::Any};
use std::{fs, io, path::Path};

/// Runtime options of the start request: `CreateSandbox` does not have them.
const OPTIONS: &str = "casemate-options";
/// Directory of the pod's files.
const FILES: &str = "pod";

/// Keeps the runtime options in the bundle `dir`.
///
/// # Errors
/// When the file cannot be written.
pub fn keep_options(dir: &Path, options: &Any) -> io::Result<()> {
    fs::write(dir.join(OPTIONS), options.write_to_bytes()?)
}

/// What [`keep_options`] wrote.
pub fn kept_options(dir: &Path) -> Option<Any> {
    let bytes = fs::read(dir.join(OPTIONS)).ok()?;
    Any::parse_from_bytes(&bytes).ok()
}

/// Writes document and files of the pod into the bundle `dir`.
pub fn write(dir: &Path, config: &PodSandboxConfig, id: &str, netns: &str) -> Result<(), BundleError> {
    let files = dir.join(FILES);
    let content = PodFiles::of(config);
    let document = document(config, Place { id, netns, files: &files }).to_string();
    let write_all = || {
        fs::create_dir_all(&files)?;
        fs::write(files.join("hosts"), &content.hosts)?;
        fs::write(files.join("hostname"), &content.hostname)?;
        if let Some(resolv_conf) = &content.resolv_conf {
            fs::write(files.join("resolv.conf"), resolv_conf)?;
        }
        fs::write(dir.join("config.json"), document)
    };
    write_all().map_err(BundleError::Write)
}
