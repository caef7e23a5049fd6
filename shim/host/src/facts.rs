//! What is read of a host; nothing is changed or loaded.

use crate::kvm::{self, KvmFacts};
use nix::unistd::{AccessFlags, access};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that a node needs, besides containerd.
const PROGRAMS: [&str; 3] = ["containerd-shim-casemate-v2", "casemate-vmm", "casemate-converter"];
/// The guest image's files, where `config.toml` expects them by default.
const GUEST: &str = "usr/local/share/casemate";
const GUEST_FILES: [&str; 3] = ["vmlinux", "initramfs.cpio", "manifest.json"];
/// Most bytes of /proc/cpuinfo that are read: one processor has 2 KB.
const CPUINFO_BYTES: usize = 64 << 10;

/// Programs and files that are installed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// Output of `containerd --version`.
    pub containerd: Option<String>,
    /// Whether its socket is there.
    pub socket: bool,
    /// Our own programs that are not in PATH.
    pub missing: Vec<String>,
    /// Files of the guest image that are not there.
    pub guest_missing: Vec<PathBuf>,
}

/// All facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `vendor_id` and `model name`.
    pub processor: String,
    /// Flags of the first processor.
    pub flags: BTreeSet<String>,
    /// `uname -r`.
    pub kernel: String,
    /// KVM, or why it cannot be opened.
    pub kvm: Result<KvmFacts, i32>,
    /// `sev_snp` of kvm_amd; absent where the module is not loaded.
    pub kvm_amd_snp: Option<String>,
    /// `ciphertext_hiding_asids` of kvm_amd (Linux 6.18).
    pub hiding_asids: Option<String>,
    /// Whether ccp, the secure processor's driver, is loaded.
    pub ccp: bool,
    /// Whether this user can read and write /dev/sev; `None` if it is absent.
    pub dev_sev: Option<bool>,
    /// What is installed.
    pub programs: Programs,
}

impl Facts {
    /// Reads this host's.
    pub fn read() -> Self {
        let directories = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<_> = std::env::split_paths(&directories).filter(|dir| dir.is_absolute()).collect();
        let mut facts = Self::of_files(Path::new("/"), &directories);
        facts.kvm = kvm::facts().map_err(|error| error.errno());
        facts.programs.containerd = containerd_version();
        facts
    }

    /// All that files say, below `root`.
    fn of_files(root: &Path, directories: &[PathBuf]) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
        let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
        let cpuinfo = cpuinfo.get(..CPUINFO_BYTES).unwrap_or(&cpuinfo);
        let field = |name: &str| {
            let of_line = |line: &str| {
                line.split_once(':')
                    .filter(|(key, _)| key.trim() == name)
                    .map(|(_, value)| value.trim().to_owned())
            };
            cpuinfo.lines().find_map(of_line).unwrap_or_default()
        };
        let parameter = |name: &str| text(&format!("sys/module/kvm_amd/parameters/{name}"));
        let sev = root.join("dev/sev");
        let installed = |name: &&str| directories.iter().any(|dir| access(&dir.join(name), AccessFlags::X_OK).is_ok());
        let guest = GUEST_FILES.map(|file| root.join(GUEST).join(file));
        Self {
            processor: format!("{} {}", field("vendor_id"), field("model name")).trim().to_owned(),
            flags: field("flags").split_ascii_whitespace().map(str::to_owned).collect(),
            kernel: text("proc/sys/kernel/osrelease").unwrap_or_default(),
            kvm: Err(libc::ENOENT),
            kvm_amd_snp: parameter("sev_snp"),
            hiding_asids: parameter("ciphertext_hiding_asids"),
            ccp: root.join("sys/module/ccp").exists(),
            dev_sev: sev.exists().then(|| access(&sev, AccessFlags::R_OK | AccessFlags::W_OK).is_ok()),
            programs: Programs {
                containerd: None,
                socket: root.join("run/containerd/containerd.sock").exists(),
                missing: PROGRAMS.iter().filter(|name| !installed(name)).map(ToString::to_string).collect(),
                guest_missing: guest.into_iter().filter(|file| !file.exists()).collect(),
            },
        }
    }
}

fn containerd_version() -> Option<String> {
    let output = Command::new("containerd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_read_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu svm sev_snp\n\nprocessor\t: 1\nflags\t\t: fpu\n",
        );
        write("proc/sys/kernel/osrelease", "6.12.1\n");
        write("sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        write("dev/sev", "");
        write("usr/local/share/casemate/vmlinux", "");
        write("bin/casemate-vmm", "");
        let facts = Facts::of_files(root.path(), &[root.path().join("bin")]);
        assert_eq!(facts.processor, "AuthenticAMD AMD EPYC 9654");
        assert!(facts.flags.contains("sev_snp") && facts.flags.len() == 3);
        assert_eq!(
            (facts.kernel.as_str(), facts.kvm_amd_snp.as_deref(), facts.dev_sev),
            ("6.12.1", Some("Y"), Some(true))
        );
        assert_eq!((facts.ccp, facts.hiding_asids), (false, None));
        assert_eq!(facts.programs.missing, ["containerd-shim-casemate-v2", "casemate-converter"]);
        assert_eq!(facts.programs.guest_missing.len(), 2);
    }

    #[test]
    fn a_host_without_anything_is_described_too() {
        let facts = Facts::of_files(Path::new("/nonexistent"), &[]);
        assert_eq!((facts.processor.as_str(), facts.programs.missing.len()), ("", 3));
    }
}
