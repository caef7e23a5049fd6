//! What the facts mean: one line for each thing that a guest needs, with what to do where it is missing.

use crate::facts::Facts;
use serde::Serialize;
use std::io;

/// The API version of KVM since Linux 2.6.22.
const KVM_API: i32 = 12;

/// Which guests need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Every guest.
    Plain,
    /// SEV-SNP guests, besides what every guest needs.
    Snp,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is there.
    Ok,
    /// It is missing; what to do.
    Missing(String),
    /// No guest needs it; what it would be good for.
    Optional(String),
}

/// One thing that a host has or lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which guests need it.
    pub area: Area,
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// What that means.
    pub outcome: Outcome,
}

/// Whether nothing that guests of `area` need is missing.
pub fn runs(area: Area, checks: &[Check]) -> bool {
    let needed = |check: &&Check| check.area == Area::Plain || check.area == area;
    !checks
        .iter()
        .filter(needed)
        .any(|check| matches!(check.outcome, Outcome::Missing(_)))
}

/// All checks, in the order in which they are worth mending.
pub fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![processor(facts), kvm(facts)];
    checks.extend([containerd(facts), programs(facts), guest(facts)]);
    checks.extend([snp_processor(facts), secure_processor(facts), snp_kvm(facts), private_memory(facts)]);
    checks.extend([policy_bits(facts), ciphertext_hiding(facts)]);
    checks
}

fn check(area: Area, name: &'static str, found: impl Into<String>, missing: Option<&str>) -> Check {
    Check {
        area,
        name,
        found: found.into(),
        outcome: missing.map_or(Outcome::Ok, |advice| Outcome::Missing(advice.to_owned())),
    }
}

fn processor(facts: &Facts) -> Check {
    let virtualises = ["svm", "vmx"].iter().any(|flag| facts.flags.contains(*flag));
    let advice = "no svm or vmx: enable virtualisation in the firmware setup; in a VM, its host must offer it nested";
    check(Area::Plain, "processor", &facts.processor, (!virtualises).then_some(advice))
}

fn kvm(facts: &Facts) -> Check {
    let row = |found: String, missing: Option<&str>| check(Area::Plain, "KVM", found, missing);
    match &facts.kvm {
        Err(errno @ (libc::EACCES | libc::EPERM)) => row(error(*errno), Some("let this user read and write /dev/kvm, or run as root")),
        Err(errno) => row(error(*errno), Some("load kvm_amd or kvm_intel")),
        Ok(kvm) if kvm.api != KVM_API => row(format!("API version {}", kvm.api), Some("KVM of Linux 2.6.22 or later is needed")),
        Ok(kvm) if !kvm.missing.is_empty() => row(format!("lacks {}", kvm.missing.join(", ")), Some("use Linux 5.10 or later")),
        Ok(kvm) => row(format!("/dev/kvm, API version {}, Linux {}", kvm.api, facts.kernel), None),
    }
}

fn error(errno: i32) -> String {
    format!("/dev/kvm: {}", io::Error::from_raw_os_error(errno))
}

fn containerd(facts: &Facts) -> Check {
    let missing = match (&facts.programs.containerd, facts.programs.socket) {
        (None, _) => Some("install containerd 1.6 or later"),
        (Some(_), false) => Some("/run/containerd/containerd.sock is absent: start containerd"),
        (Some(_), true) => None,
    };
    let found = facts.programs.containerd.clone().unwrap_or_else(|| "not in PATH".to_owned());
    check(Area::Plain, "containerd", found, missing)
}

fn programs(facts: &Facts) -> Check {
    let missing = &facts.programs.missing;
    match missing.is_empty() {
        true => check(Area::Plain, "programs", "in PATH", None),
        false => check(
            Area::Plain,
            "programs",
            format!("not in PATH: {}", missing.join(", ")),
            Some("`make install`, or put them into a directory of containerd's PATH"),
        ),
    }
}

fn guest(facts: &Facts) -> Check {
    let missing: Vec<_> = facts.programs.guest_missing.iter().map(|file| file.display().to_string()).collect();
    match missing.is_empty() {
        true => check(Area::Plain, "guest image", "installed", None),
        false => check(
            Area::Plain,
            "guest image",
            format!("absent: {}", missing.join(", ")),
            Some("`casemate image build`, then `make install`; or name its files in /etc/casemate/config.toml"),
        ),
    }
}

fn snp_processor(facts: &Facts) -> Check {
    let (found, missing) = if facts.flags.contains("sev_snp") {
        ("sev_snp", None)
    } else if facts.flags.contains("sev") {
        (
            "sev without sev_snp",
            Some("enable SNP and its RMP in the firmware setup: SMEE, SEV-SNP Support, SNP Memory (RMP Table) Coverage"),
        )
    } else {
        (
            "no sev",
            Some(
                "an AMD EPYC 7003 or later is needed, with SMEE and SEV-SNP enabled in the firmware setup; verifiers refuse the 7003 unless told",
            ),
        )
    };
    check(Area::Snp, "processor", found, missing)
}

fn secure_processor(facts: &Facts) -> Check {
    let (found, missing) = match (facts.ccp, facts.dev_sev) {
        (_, Some(true)) => ("/dev/sev", None),
        (_, Some(false)) => (
            "/dev/sev: permission denied",
            Some("let this user read and write /dev/sev, or run as root"),
        ),
        (true, None) => (
            "ccp, without /dev/sev",
            Some("its firmware did not start: see the kernel's log for ccp"),
        ),
        (false, None) => ("no /dev/sev", Some("load ccp")),
    };
    check(Area::Snp, "secure processor", found, missing)
}

fn snp_kvm(facts: &Facts) -> Check {
    let offers = facts.kvm.as_ref().is_ok_and(|kvm| kvm.sev.snp_vm);
    let parameter = facts.kvm_amd_snp.as_deref();
    let (found, missing) = match (offers, parameter) {
        (true, _) => ("SNP VMs".to_owned(), None),
        (false, None) => (
            "kvm_amd is not loaded".to_owned(),
            Some("load kvm_amd; SNP needs Linux 6.11 or later"),
        ),
        (false, Some(value)) => (
            format!("no SNP VMs, kvm_amd.sev_snp={value}"),
            Some("use Linux 6.11 or later, with the IOMMU on and not in passthrough mode; the kernel's log says more under SEV-SNP"),
        ),
    };
    check(Area::Snp, "KVM", found, missing)
}

fn private_memory(facts: &Facts) -> Check {
    let lacks = facts.kvm.as_ref().map(|kvm| kvm.sev.missing.join(", "));
    let (found, missing) = match lacks {
        Ok(lacks) if lacks.is_empty() => ("guest_memfd".to_owned(), None),
        Ok(lacks) => (format!("KVM lacks {lacks}"), Some("use Linux 6.11 or later")),
        Err(_) => ("unknown without /dev/kvm".to_owned(), Some("see KVM above")),
    };
    check(Area::Snp, "private memory", found, missing)
}

fn policy_bits(facts: &Facts) -> Check {
    let bits = facts.kvm.as_ref().ok().and_then(|kvm| kvm.sev.policy_bits);
    let mut check = check(
        Area::Snp,
        "guest policies",
        bits.map_or("bits unknown".to_owned(), |bits| format!("bits {bits:#x}")),
        None,
    );
    if bits.is_none() {
        check.outcome = Outcome::Optional("Linux 6.19 says which it takes; older ones take the default only".to_owned());
    }
    check
}

fn ciphertext_hiding(facts: &Facts) -> Check {
    let asids = facts.hiding_asids.as_deref().filter(|asids| *asids != "0");
    let mut check = check(
        Area::Snp,
        "ciphertext hiding",
        asids.map_or("off".to_owned(), |asids| format!("{asids} ASIDs")),
        None,
    );
    if asids.is_none() {
        check.outcome = Outcome::Optional(
            "the host can compare a guest's encrypted memory over time; kvm_amd.ciphertext_hiding_asids=N (Linux 6.18) hides it".to_owned(),
        );
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        facts::Programs,
        kvm::{KvmFacts, SevFacts},
    };

    fn whole() -> Facts {
        Facts {
            processor: "AuthenticAMD AMD EPYC 9654".to_owned(),
            flags: ["svm", "sev", "sev_snp"].map(str::to_owned).into(),
            kernel: "6.19.0".to_owned(),
            kvm: Ok(KvmFacts {
                api: KVM_API,
                missing: Vec::new(),
                sev: SevFacts {
                    snp_vm: true,
                    missing: Vec::new(),
                    policy_bits: Some(0x1f_ffff),
                },
            }),
            kvm_amd_snp: Some("Y".to_owned()),
            hiding_asids: Some("16".to_owned()),
            ccp: true,
            dev_sev: Some(true),
            programs: Programs {
                containerd: Some("containerd github.com/containerd/containerd 1.7.24".to_owned()),
                socket: true,
                missing: Vec::new(),
                guest_missing: Vec::new(),
            },
        }
    }

    #[test]
    fn a_whole_host_runs_both() {
        let checks = checks(&whole());
        assert!(checks.iter().all(|check| check.outcome == Outcome::Ok), "{checks:?}");
        assert!(runs(Area::Plain, &checks) && runs(Area::Snp, &checks));
    }

    /// Each single thing that is missing is said once, and stops the guests that need it.
    #[test]
    fn each_thing_that_is_missing_has_its_line() {
        type Take = fn(&mut Facts);
        let kvm = |facts: &mut Facts| facts.kvm.clone().unwrap();
        let takes: [(&str, bool, Take); 9] = [
            ("processor", false, |f| f.flags.retain(|flag| flag != "svm")),
            ("KVM", false, |f| f.kvm.as_mut().unwrap().missing.push("KVM_CAP_IRQFD")),
            ("containerd", false, |f| f.programs.socket = false),
            ("programs", false, |f| f.programs.missing.push("casemate-vmm".to_owned())),
            ("guest image", false, |f| f.programs.guest_missing.push("/x".into())),
            ("processor", true, |f| f.flags.retain(|flag| flag != "sev_snp")),
            ("secure processor", true, |f| f.dev_sev = None),
            ("KVM", true, |f| f.kvm.as_mut().unwrap().sev.snp_vm = false),
            ("private memory", true, |f| {
                f.kvm.as_mut().unwrap().sev.missing.push("KVM_CAP_GUEST_MEMFD")
            }),
        ];
        assert!(kvm(&mut whole()).missing.is_empty());
        for (name, plain_runs, take) in takes {
            let mut facts = whole();
            take(&mut facts);
            let checks = checks(&facts);
            let missing: Vec<_> = checks.iter().filter(|check| matches!(check.outcome, Outcome::Missing(_))).collect();
            assert_eq!(missing.iter().map(|check| check.name).collect::<Vec<_>>(), [name]);
            assert_eq!(
                (runs(Area::Plain, &checks), runs(Area::Snp, &checks)),
                (plain_runs, false),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_optional_stops_nothing() {
        let mut facts = whole();
        facts.hiding_asids = Some("0".to_owned());
        facts.kvm.as_mut().unwrap().sev.policy_bits = None;
        let checks = checks(&facts);
        let optional = checks.iter().filter(|check| matches!(check.outcome, Outcome::Optional(_)));
        assert_eq!(optional.count(), 2);
        assert!(runs(Area::Snp, &checks));
    }

    #[test]
    fn a_host_without_kvm_says_how_to_get_it() {
        let mut facts = whole();
        facts.kvm = Err(libc::EACCES);
        let checks = checks(&facts);
        assert!(!runs(Area::Plain, &checks));
        let kvm = checks.iter().find(|check| check.name == "KVM").unwrap();
        assert_eq!(kvm.found, "/dev/kvm: Permission denied (os error 13)");
    }
}
