//! Decides between KVM and TCG for L1: KVM only if a probe machine boots Linux on it and could itself run VMs.
//!
//! Many rented machines have a /dev/kvm with no SVM or VMX behind it: tiny guests run there, a Linux kernel does not.

use super::{accel::Accel, build::Image, machine};
use crate::testbed::host;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit of the probe; its initrd prints within two seconds on a working KVM.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
const PROBE_WORD: &str = "CASEMATE-PROBE-OK";
const POLL: Duration = Duration::from_millis(100);

/// Decides once per boot of the host.
pub fn choose(image: &Image) -> Result<Accel> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg("no /dev/kvm here".to_owned()));
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    if !cpuinfo.split_ascii_whitespace().any(|word| word == "svm" || word == "vmx") {
        return Ok(Accel::Tcg("/dev/kvm has no SVM or VMX behind it".to_owned()));
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the boot id")?;
    let answer = host::cache_dir("l1")?.join("kvm-probe");
    let verdict = match std::fs::read_to_string(&answer)
        .ok()
        .as_deref()
        .and_then(|text| text.split_once(' '))
    {
        Some((known, verdict)) if known == boot.trim() => verdict == "boots",
        _ => {
            let boots = probe(image)?;
            guest_image::cache::write_whole(
                &answer,
                format!("{} {}", boot.trim(), if boots { "boots" } else { "does-not-boot" }).as_bytes(),
            )?;
            boots
        }
    };
    Ok(if verdict {
        Accel::Kvm
    } else {
        Accel::Tcg("/dev/kvm does not boot Linux with nested virtualisation".to_owned())
    })
}

fn probe(image: &Image) -> Result<bool> {
    let log = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "256",
            "-display",
            "none",
            "-no-reboot",
            "-nodefaults",
            "-serial",
        ])
        .arg(format!("file:{}", log.path().display()))
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", &format!("{} casemate.probe", machine::KERNEL_ARGUMENTS)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let end = Instant::now() + PROBE_DEADLINE;
    let ended = loop {
        if child.try_wait().context("cannot wait for the probe")?.is_some() || Instant::now() > end {
            break host::tail(&std::fs::read(log.path()).unwrap_or_default(), 1 << 20);
        }
        std::thread::sleep(POLL);
    };
    let _ = child.kill();
    let _ = child.wait();
    Ok(ended.contains(PROBE_WORD))
}
