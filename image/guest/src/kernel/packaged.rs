//! Debian's packaged cloud kernel with the modules that the guest needs; no compiler is needed.

use super::{Kernel, pack::pack, run};
use crate::hash::{read_hex, sha256_file};
use crate::{cache, progress::Step};
use anyhow::{Context, Result, bail};
use guest_manifest::Input;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules of the cloud kernel that the guest needs; modprobe adds their dependencies.
const MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    "dm_verity",
    "dm_crypt",
    "dm_integrity",
    "loop",
    "authenc",
    "xts",
    "overlay",
];

/// Start of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The newest packaged 6.12 cloud kernel in apt's lists, from the cache or downloaded.
pub fn obtain() -> Result<Kernel> {
    let package = newest_package()?;
    let dir = cache::root()?.join("kernel").join(cache::key(&[
        package.as_bytes(),
        MODULES.join(" ").as_bytes(),
        b"packed and divided",
    ]));
    if !dir.join("order").exists() {
        unpack(&package, &dir)?;
    }
    let order = std::fs::read_to_string(dir.join("order"))?;
    let sha256 = read_hex(&dir.join("package.sha256"))?;
    Ok(Kernel {
        vmlinux: dir.join("vmlinux"),
        modules: order.lines().map(|name| dir.join("modules").join(name)).collect(),
        inputs: vec![Input {
            name: package.clone(),
            sha256,
        }],
        compiler: package,
    })
}

fn newest_package() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["search", "--names-only", r"^linux-image-6\.12\..*-cloud-amd64$"])
        .output()
        .context("cannot run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().next()).collect();
    names.sort_by_key(|name| version_key(name));
    names
        .pop()
        .map(str::to_owned)
        .context("apt lists no linux-image-6.12*-cloud-amd64: run `apt-get update`, or use the default kernel")
}

/// The numbers in a package's name, so that .117 comes after .95.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

fn unpack(package: &str, dir: &Path) -> Result<()> {
    let work = dir.join("work");
    let _ = std::fs::remove_dir_all(&work);
    let modules = dir.join("modules");
    for d in [&work, &modules] {
        std::fs::create_dir_all(d).with_context(|| format!("cannot create {}", d.display()))?;
    }
    let step = Step::start(format!("downloading {package}"));
    run(Command::new("apt-get").args(["-q", "download", package]).current_dir(&work))?;
    let deb = only_deb(&work)?;
    let sha256 = hex::encode(sha256_file(&deb)?);
    let root = work.join("root");
    run(Command::new("dpkg").arg("-x").args([&deb, &root]))?;
    step.done();

    let image = find(&root.join("boot"), "vmlinuz-")?;
    let version = image
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix("vmlinuz-"))
        .context("the kernel's file name has no version")?
        .to_owned();
    extract_vmlinux(&std::fs::read(&image)?, &work.join("vmlinux.zst"), &dir.join("vmlinux"))?;

    // modprobe looks below lib/; newer packages unpack to usr/lib/.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    run(Command::new("depmod").arg("-b").arg(&root).arg(&version))?;
    let mut order: Vec<String> = Vec::new();
    for path in module_paths(&root, &version)? {
        let name = path
            .file_name()
            .context("a module without a file name")?
            .to_string_lossy()
            .trim_end_matches(".xz")
            .to_owned();
        if order.contains(&name) {
            continue;
        }
        let bytes = if path.extension().is_some_and(|e| e == "xz") {
            Command::new("xz").arg("-dc").arg(&path).output().context("cannot run xz")?.stdout
        } else {
            std::fs::read(&path)?
        };
        cache::write_whole(&modules.join(&name), &bytes)?;
        order.push(name);
    }
    cache::write_whole(&dir.join("package.sha256"), sha256.as_bytes())?;
    cache::write_whole(&dir.join("order"), order.join("\n").as_bytes())?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// Files of [`MODULES`] and their dependencies, in loading order.
fn module_paths(root: &Path, version: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("modprobe")
        .arg("-d")
        .arg(root)
        .args(["-S", version, "--show-depends", "-a"])
        .args(MODULES)
        .output()
        .context("cannot run modprobe")?;
    if !output.status.success() {
        bail!(
            "modprobe cannot find all of {MODULES:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|l| l.strip_prefix("insmod "))
        .map(|l| PathBuf::from(l.trim()))
        .collect())
}

/// The ELF kernel inside a bzImage: the first zstd frame that decompresses to an ELF file.
fn extract_vmlinux(image: &[u8], scratch: &Path, out: &Path) -> Result<()> {
    for at in image.windows(4).enumerate().filter(|(_, w)| *w == ZSTD_MAGIC).map(|(at, _)| at) {
        std::fs::write(scratch, &image[at..])?;
        // zstd fails because of the data after the frame, so only the output counts.
        let output = Command::new("zstd")
            .args(["-dcq"])
            .arg(scratch)
            .output()
            .context("cannot run zstd")?;
        if output.stdout.starts_with(b"\x7fELF") {
            return cache::write_whole(out, &pack(&output.stdout)?);
        }
    }
    bail!("no zstd-compressed ELF kernel in the bzImage")
}

fn only_deb(dir: &Path) -> Result<PathBuf> {
    find(dir, "linux-image")
}

fn find(dir: &Path, prefix: &str) -> Result<PathBuf> {
    std::fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|e| e.ok())
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .with_context(|| format!("no {prefix}* in {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_number() {
        assert!(version_key("linux-image-6.12.117+deb12-cloud-amd64") > version_key("linux-image-6.12.95+deb12-cloud-amd64"));
    }
}
