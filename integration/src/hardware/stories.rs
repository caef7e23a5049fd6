//! What SEV-SNP guests must show on hardware: they start, with one and several vCPUs; their reports say what was launched; memory that they
//! accept while they run works; they end without leaving anything.

use super::{Host, path};
use crate::lab::{Container, Ended, Policy, simulated::COMMAND};
use crate::testbed::images::{BUSYBOX, CURL};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::io::Read;

/// AMD's key server; set to another for a host that does not reach it.
const KEY_SERVER: &str = "CASEMATE_KEY_SERVER";
const AMD: &str = "https://kdsintf.amd.com";
/// Every product at every level: which of them a verifier accepts is not what is tested here.
const REQUIREMENTS: &str = r#"
products = ["milan", "genoa", "turin", "venice"]
[minimum_tcb]
milan = { boot_loader = 0, tee = 0, snp = 0, microcode = 0 }
genoa = { boot_loader = 0, tee = 0, snp = 0, microcode = 0 }
turin = { fmc = 0, boot_loader = 0, tee = 0, snp = 0, microcode = 0 }
venice = { fmc = 0, tee = 0, snp = 0 }
"#;

/// A story on hardware.
pub struct Story {
    /// On the command line.
    pub name: &'static str,
    /// In one sentence.
    pub about: &'static str,
    /// The story.
    pub run: fn(&Host) -> Result<()>,
}

/// All, in the order in which they are worth mending.
pub const ALL: &[Story] = &[
    Story {
        name: "start",
        about: "containers start in guests with 1 and with 4 virtual CPUs and print what they see",
        run: start,
    },
    Story {
        name: "denied",
        about: "a container that the policy does not list is denied",
        run: denied,
    },
    Story {
        name: "memory",
        about: "a program uses memory that the guest has accepted beyond its first pages",
        run: memory,
    },
    Story {
        name: "attest",
        about: "a container's report is verified from AMD's root to measurement, policy and nonce; with another policy or nonce it is refused",
        run: attest,
    },
    Story {
        name: "end",
        about: "a guest whose container is killed ends, and so does one whose container exits",
        run: end,
    },
];

impl Host {
    /// A container of `image` in an SEV-SNP guest under `policy`.
    fn container(&self, image: &str, policy: &Policy) -> Result<Container> {
        let container = self.lab.container(image).under(policy);
        Ok(container.option("--runtime-config-path", path(&self.config)?))
    }

    fn policy(&self, image: &str, command: &[&str]) -> Result<Policy> {
        let wanted = Policy::of(image).images(&self.images).command(command);
        wanted.signals(&[9, 15]).generate()
    }
}

fn start(host: &Host) -> Result<()> {
    let command = ["grep", "-c", "^processor", "/proc/cpuinfo"];
    let policy = host.policy(BUSYBOX, &command)?;
    for count in ["1", "4"] {
        let vcpus = format!("io.casemate.vcpus={count}");
        let container = host.container(BUSYBOX, &policy)?.option("--annotation", &vcpus);
        container.command(command).run()?.exits_with(0)?.prints(count)?;
    }
    Ok(())
}

fn denied(host: &Host) -> Result<()> {
    let policy = host.policy(BUSYBOX, &["echo", "allowed"])?;
    let other = host.container(BUSYBOX, &policy)?.command(["echo", "another"]);
    other.run()?.fails()?.mentions("denied by policy")?;
    Ok(())
}

fn memory(host: &Host) -> Result<()> {
    // The last program keeps a gigabyte.
    let command = ["sh", "-c", "dd if=/dev/zero bs=1M count=1100 | tail -c 1000000000 | wc -c"];
    let policy = host.policy(BUSYBOX, &command)?;
    let container = host.container(BUSYBOX, &policy)?.option("--annotation", "io.casemate.memory=2048");
    container.command(command).run()?.exits_with(0)?.prints("1000000000")?;
    Ok(())
}

fn end(host: &Host) -> Result<()> {
    let command = ["sleep", "1000"];
    let policy = host.policy(BUSYBOX, &command)?;
    host.container(BUSYBOX, &policy)?.command(command).start()?.killed(&host.lab)?;
    host.lab.nothing_is_left()?;
    let command = ["true"];
    let policy = host.policy(BUSYBOX, &command)?;
    host.container(BUSYBOX, &policy)?.command(command).run()?.exits_with(0)?;
    Ok(())
}

fn attest(host: &Host) -> Result<()> {
    let nonce = nonce()?;
    let wanted = Policy::of(CURL).images(&host.images).command(&COMMAND);
    let policy = wanted.environment("NONCE=[0-9a-f]{64}").generate()?;
    let asking = host.container(CURL, &policy)?.option("--env", &format!("NONCE={nonce}"));
    let answer = asking.command(COMMAND).run()?.exits_with(0)?.stdout;
    let document: Value = serde_json::from_slice(&answer).context("the guest's answer is not JSON")?;
    let report = STANDARD
        .decode(document["report"].as_str().context("the answer has no report")?)
        .context("the answer's report is not base64")?;
    let [answer_file, report_file, policy_file, other_file, requirements] =
        ["answer.json", "report.bin", "policy.rego", "other.rego", "verifier.toml"].map(|name| host.out.join(name));
    let other = host.policy(BUSYBOX, &["true"])?;
    for (file, bytes) in [
        (&answer_file, answer.as_slice()),
        (&report_file, &report),
        (&policy_file, policy.text().as_bytes()),
        (&other_file, other.text().as_bytes()),
        (&requirements, REQUIREMENTS.as_bytes()),
    ] {
        std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let server = std::env::var(KEY_SERVER).unwrap_or_else(|_| AMD.to_owned());
    let certs = host.out.join("certs");
    let certs = path(&certs)?;
    Ended::of(&[
        "casemate",
        "attest",
        "fetch",
        "--report",
        path(&report_file)?,
        "--server",
        &server,
        "--certs",
        certs,
    ])?
    .exits_with(0)?;

    let manifest = host.guest.join("manifest.json");
    let verify = |policy, nonce: &str| -> Result<Ended> {
        Ended::of(&[
            "casemate",
            "attest",
            "verify",
            path(&answer_file)?,
            "--nonce",
            nonce,
            "--certs",
            certs,
            "--requirements",
            path(&requirements)?,
            "--policy",
            path(policy)?,
            "--manifest",
            path(&manifest)?,
        ])
    };
    let verified = verify(&policy_file, &nonce)?.exits_with(0)?.text();
    ensure!(verified.lines().last() == Some("verified"), "{verified}");
    for (policy, nonce) in [(&other_file, nonce.clone()), (&policy_file, "00".repeat(32))] {
        let refused = verify(policy, &nonce)?.exits_with(1)?.text();
        ensure!(
            refused.lines().last().is_some_and(|line| line.starts_with("refused: ")),
            "{refused}"
        );
    }
    Ok(())
}

fn nonce() -> Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(hex::encode(bytes))
}
