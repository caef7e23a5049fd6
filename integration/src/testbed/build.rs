//! Builds disk, kernel and initrd of L1 from Debian packages; cached by the hash of all inputs.

use super::debian::Suite;
use crate::testbed::{debian::Archive, host};
use anyhow::{Context, Result};
use guest_image::{cache, progress::Step};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages of L1 besides Debian's minimal base.
const PACKAGES: &[&str] = &[
    "containerd",
    "runc",
    "iproute2",
    "kmod",
    "busybox-static",
    "e2fsprogs",
    "procps",
    "strace",
    "util-linux",
    "less",
    "docker-registry",
    "containernetworking-plugins",
    "iptables",
];
/// Packages whose versions are printed, and part of the key of a suite that moves.
const VERSIONED: &[&str] = &["containerd", "runc", "containernetworking-plugins"];
/// 6.12 in every suite: bookworm has it among its security updates, forky gets trixie's (a newer kernel would test QEMU's emulation
/// besides containerd). The cloud flavour has every module that L1 loads, at half the size.
const KERNEL: &str = r"linux-image-6\.12\.[0-9]+\+deb1[23]-cloud-amd64";
/// Modules that the initrd needs to reach the disk.
const INITRD_MODULES: &[&str] = &["virtio_blk", "ext4"];
const DISK_SIZE: &str = "1500M";
/// Mount points that must exist in the read-only root.
const DIRECTORIES: &[&str] = &[
    "job",
    "etc/casemate",
    "var/lib/containerd",
    "var/lib/casemate",
    "var/lib/cni",
    "opt/containerd/bin",
    "opt/containerd/lib",
    "etc/cni/net.d",
];
/// Increased when the recipe changes in a way that the inputs below do not show.
const RECIPE: &str = "1";

const INIT: &str = include_str!("init.sh");
const INITRD_INIT: &str = include_str!("initrd.sh");

/// A built L1.
#[derive(Clone, Debug)]
pub struct Image {
    /// Debian suite.
    pub suite: Suite,
    /// Directory with `l1.ext4` and `vmlinuz`.
    dir: PathBuf,
    /// The initrd, which carries L1's init.
    pub initrd: PathBuf,
    /// Identifies the image's content.
    pub key: String,
}

impl Image {
    /// The root disk, never written to.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("l1.ext4")
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }
}

/// The L1 of `suite` from the cache; built first if it is not there.
pub fn obtain(suite: Suite) -> Result<Image> {
    let name = suite.name();
    let versions = if suite.moves() { versions_today(suite)? } else { String::new() };
    let disk_key = cache::key(&[
        format!("{RECIPE}{versions}").as_bytes(),
        name.as_bytes(),
        PACKAGES.join(" ").as_bytes(),
        KERNEL.as_bytes(),
        DIRECTORIES.join(" ").as_bytes(),
    ]);
    let dir = host::cache_dir("l1")?.join(format!("{name}-{disk_key}"));
    if !dir.join("done").exists() {
        build_disk(suite, &dir)?;
    }
    let key = cache::key(&[disk_key.as_bytes(), INIT.as_bytes(), INITRD_INIT.as_bytes()]);
    let initrd = dir.join(format!("initrd-{key}"));
    if !initrd.exists() {
        build_initrd(&dir, &initrd)?;
    }
    Ok(Image { suite, dir, initrd, key })
}

/// The versions in the suite's archive; where it cannot be reached, those that it had when it last was.
fn versions_today(suite: Suite) -> Result<String> {
    let archive = Archive::open(suite.name())?;
    if let Err(error) = archive.refresh() {
        eprintln!("    {error:#}; the test machine is of the lists that are here");
    }
    let versions = archive.versions(VERSIONED)?;
    eprintln!("    Debian {}: {}", suite.name(), versions.trim().replace('\n', ", "));
    Ok(versions)
}

fn build_disk(suite: Suite, dir: &Path) -> Result<()> {
    host::require_root("building the test machine")?;
    let mut step = Step::start(format!("test machine of Debian {} (about a minute, once)", suite.name()));
    let archive = Archive::open(suite.name())?;
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let root = dir.join("root");
    step.at(format_args!("packages"));
    bootstrap(&archive, &root)?;
    step.at(format_args!("kernel"));
    let kernels = if suite.moves() {
        Archive::open(Suite::Trixie.name())?
    } else {
        archive
    };
    let release = install_kernel(&kernels, dir, &root)?;
    collect_initrd_parts(&root, &release, &dir.join("initrd-parts"))?;
    for directory in DIRECTORIES {
        std::fs::create_dir_all(root.join(directory)).with_context(|| format!("cannot create {directory} in L1"))?;
    }
    step.at(format_args!("disk"));
    // No journal: the disk is never written to. No loop mount: mke2fs copies the tree itself.
    host::run(
        Command::new("mke2fs")
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-E",
                "lazy_itable_init=1",
                "-m",
                "0",
                "-d",
            ])
            .arg(&root)
            .arg(dir.join("l1.ext4"))
            .arg(DISK_SIZE),
    )?;
    std::fs::remove_dir_all(&root).context("cannot remove the tree that the disk was made of")?;
    std::fs::write(dir.join("done"), release).context("cannot mark the test machine as complete")?;
    step.done();
    Ok(())
}

fn bootstrap(archive: &Archive, root: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args([
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        "--aptopt=APT::Install-Recommends \"false\"",
    ]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    for excluded in ["man", "doc", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{excluded}/*"));
    }
    host::run(command.arg(archive.suite()).arg(root).arg(archive.sources()))?;
    Ok(())
}

/// Unpacks the kernel package: the kernel beside the root, the modules into it. Returns the kernel's release.
fn install_kernel(archive: &Archive, dir: &Path, root: &Path) -> Result<String> {
    archive.refresh()?;
    let package = archive.newest(KERNEL)?;
    let debs = archive.download(&[&package], &dir.join("kernel"))?;
    let unpacked = dir.join("kernel/unpacked");
    host::run(Command::new("dpkg-deb").arg("-x").args(&debs).arg(&unpacked))?;
    let release = package.strip_prefix("linux-image-").unwrap_or(&package).to_owned();
    cache::copy_whole(&unpacked.join(format!("boot/vmlinuz-{release}")), &dir.join("vmlinuz"))?;
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|place| unpacked.join(place))
        .into_iter()
        .find(|place| place.is_dir())
        .context("the kernel package has no modules")?;
    let target = root.join("usr/lib/modules");
    std::fs::create_dir_all(&target).context("cannot create the modules' directory")?;
    host::run(Command::new("cp").arg("-a").arg(modules.join(&release)).arg(&target))?;
    host::run(Command::new("depmod").arg("-b").arg(root).arg(&release))?;
    std::fs::remove_dir_all(dir.join("kernel")).context("cannot remove the unpacked kernel package")?;
    Ok(release)
}

/// The initrd's tree: busybox and the modules for the disk, uncompressed and numbered in loading order.
fn collect_initrd_parts(root: &Path, release: &str, parts: &Path) -> Result<()> {
    for directory in ["bin", "mod", "proc", "sys", "dev", "mnt"] {
        std::fs::create_dir_all(parts.join(directory)).context("cannot create the initrd's tree")?;
    }
    std::fs::copy(root.join("usr/bin/busybox"), parts.join("bin/busybox")).context("cannot copy busybox")?;
    let listed = host::run(
        Command::new("modprobe")
            .arg("-d")
            .arg(root)
            .args(["-S", release, "--show-depends", "-a"])
            .args(INITRD_MODULES),
    )?;
    for (n, line) in listed.lines().filter_map(|line| line.strip_prefix("insmod ")).enumerate() {
        let module = PathBuf::from(line.trim());
        let name = module
            .file_name()
            .context("modprobe listed no module file")?
            .to_string_lossy()
            .into_owned();
        let target = parts.join(format!("mod/{n:02}-{}", name.trim_end_matches(".xz")));
        if name.ends_with(".xz") {
            let output = Command::new("xz").arg("-dc").arg(&module).output().context("cannot start xz")?;
            std::fs::write(&target, output.stdout).context("cannot write a module")?;
        } else {
            std::fs::copy(&module, &target).context("cannot copy a module")?;
        }
    }
    Ok(())
}

fn build_initrd(dir: &Path, initrd: &Path) -> Result<()> {
    let parts = dir.join("initrd-parts");
    for (name, text) in [("init", INITRD_INIT), ("l1-init", INIT)] {
        let file = parts.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", file.display()))?;
    }
    let partial = initrd.with_extension("partial");
    host::run(
        Command::new("sh")
            .current_dir(&parts)
            .args(["-c", "find . | sort | cpio -o -H newc --quiet > \"$1\"", "sh"])
            .arg(&partial),
    )?;
    std::fs::rename(&partial, initrd).with_context(|| format!("cannot rename to {}", initrd.display()))
}
