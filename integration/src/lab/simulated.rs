//! Guests with simulated reports: their answers, a verifier of them, and answers that a lying host makes.

use super::{Ended, Lab, Policy};
use crate::testbed::images::CURL;
use anyhow::{Context, Result, ensure};
use attestation::Report;
use base64::{Engine, engine::general_purpose::STANDARD};
use permit_log::Log;
use serde_json::Value;
use simulated_tee::{EndorsementKey, Guest, Reporter};
use std::{fs, path::Path};
use tempfile::TempDir;

/// Keys and certificates that the shim of the first simulated guest makes.
pub const KEYS: &str = "/var/lib/casemate/simulated";
/// The container's command: asks its guest for a report that binds the nonce, and prints the answer.
pub const COMMAND: [&str; 3] = [
    "sh",
    "-c",
    "exec curl --silent --show-error --fail --unix-socket $UVM_SECURITY_CONTEXT_DIR/report.sock http://guest/report?nonce=$NONCE",
];
/// SMT allowed; bit 17 is always set.
const GUEST_POLICY: u64 = 0x3_0000;
/// A guest policy with which the host may read the guest's memory.
const DEBUG: u64 = 1 << 19;
/// Least levels, of what the simulated processor says it has.
const REQUIREMENTS: &str = "products = [\"turin\"]\n[minimum_tcb.turin]\nfmc = 1\nboot_loader = 1\ntee = 1\nsnp = 1\nmicrocode = 1\n";

/// The policy under which the container may ask.
pub fn policy() -> Result<Policy> {
    Policy::of(CURL).command(&COMMAND).environment("NONCE=[0-9a-f]{64}").generate()
}

/// What a guest answered.
#[derive(Clone)]
pub struct Answer(Value);

impl Answer {
    /// Runs a container in a simulated guest and returns what its guest answered.
    pub fn of(lab: &Lab, policy: &Policy, name: &str, nonce: &str) -> Result<Self> {
        let container = lab
            .container(CURL)
            .named(name)
            .under(policy)
            .option("--annotation", "io.casemate.tee=simulated")
            .option("--env", &format!("NONCE={nonce}"))
            .command(COMMAND);
        let ended = container.run()?.exits_with(0)?;
        serde_json::from_slice(&ended.stdout)
            .map(Self)
            .with_context(|| format!("the guest's answer is no JSON: {}", ended.said()))
    }

    /// The report.
    pub fn report(&self) -> Result<Report> {
        Report::parse(&self.bytes("report")?).context("the answer's report")
    }

    /// The log.
    pub fn log(&self) -> Result<Log> {
        Log::decode(&self.bytes("log")?).context("the answer's log")
    }

    /// The same with another log.
    pub fn with_log(&self, log: &Log) -> Self {
        self.with("log", &log.encode())
    }

    /// The same with a report of another guest policy, signed with this host's key.
    pub fn with_debug_policy(&self) -> Result<Self> {
        self.signed_again(GUEST_POLICY | DEBUG, simulated_tee::LEVEL)
    }

    /// The same with a report of a processor whose firmware is older, signed with this host's key.
    pub fn with_stale_tcb(&self) -> Result<Self> {
        self.signed_again(GUEST_POLICY, simulated_tee::LEVEL - 1)
    }

    fn signed_again(&self, policy: u64, level: u8) -> Result<Self> {
        let key = fs::read_to_string(Path::new(KEYS).join("key")).context("cannot read the host's key")?;
        let key = EndorsementKey::try_from(&hex::decode(key)?[..])?;
        let report = self.report()?;
        let guest = Guest {
            measurement: report.measurement(),
            host_data: report.host_data(),
            policy,
        };
        let reporter = Reporter::new(key, guest).with_level(level);
        Ok(self.with("report", &reporter.report(&report.report_data())))
    }

    fn with(&self, field: &str, bytes: &[u8]) -> Self {
        let mut changed = self.clone();
        changed.0[field] = STANDARD.encode(bytes).into();
        changed
    }

    fn bytes(&self, field: &str) -> Result<Vec<u8>> {
        let text = self.0[field].as_str().with_context(|| format!("the answer has no {field}"))?;
        STANDARD.decode(text).with_context(|| format!("{field} of the answer"))
    }
}

/// Whoever gives secrets to guests: what is expected of them, in files.
pub struct Verifier {
    files: TempDir,
    nonce: String,
    measurement: String,
}

/// What a verifier is told instead of the truth about this guest.
#[derive(Clone, Copy)]
pub enum Told<'a> {
    /// Nothing.
    Truth,
    /// Another nonce.
    Nonce(&'a str),
    /// To trust AMD's roots only.
    RootsOfAmd,
}

impl Verifier {
    /// Expects the installed guest image under `policy`, with one vCPU, and the container's acts.
    pub fn of(policy: &Policy, nonce: &str) -> Result<Self> {
        let files = tempfile::Builder::new()
            .prefix("verifier-")
            .tempdir_in("/job")
            .context("cannot create a directory for the verifier")?;
        let layers = layers(policy.text())?;
        let top_first: Vec<&str> = layers.iter().rev().copied().collect();
        let log = format!(
            "whole = true\nonly_named = true\nlayers = {layers:?}\nnever = [\"exec\"]\n[containers.app]\nlayers = {top_first:?}\ncommand = {COMMAND:?}\n"
        );
        for (name, text) in [("verifier.toml", REQUIREMENTS), ("policy.rego", policy.text()), ("log.toml", &log)] {
            fs::write(files.path().join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        let measured = Ended::of(&["casemate", "image", "measure", super::GUEST_IMAGE, "--tee", "simulated"])?;
        Ok(Self {
            files,
            nonce: nonce.to_owned(),
            measurement: measured.exits_with(0)?.text(),
        })
    }

    /// The image's measurement, in hexadecimal.
    pub fn measurement(&self) -> &str {
        &self.measurement
    }

    /// Judges an answer.
    pub fn judge(&self, answer: &Answer, told: Told<'_>) -> Result<Ended> {
        let path = |name: &str| self.files.path().join(name).to_string_lossy().into_owned();
        fs::write(path("answer.json"), answer.0.to_string()).context("cannot write the answer")?;
        let nonce = match told {
            Told::Nonce(other) => other,
            _ => &self.nonce,
        };
        let root = Path::new(KEYS).join("ark.pem").to_string_lossy().into_owned();
        let (answer, requirements, policy, log) = (path("answer.json"), path("verifier.toml"), path("policy.rego"), path("log.toml"));
        let mut words = vec!["casemate", "attest", "verify", &answer, "--nonce", nonce, "--certs", KEYS];
        words.extend(["--requirements", &requirements, "--policy", &policy, "--log-requirements", &log]);
        words.extend(["--measurement", &self.measurement]);
        if !matches!(told, Told::RootsOfAmd) {
            words.extend(["--roots", &root]);
        }
        Ended::of(&words)
    }

    /// Judges the sample report of a real Milan by requirements that accept everything but its product, which nobody named.
    pub fn judge_milan(&self) -> Result<Ended> {
        let dir = self.files.path().join("milan");
        fs::create_dir_all(&dir).context("cannot create a directory for the sample report")?;
        for (name, text) in MILAN {
            fs::write(dir.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let words = ["casemate", "attest", "verify", &path("report.hex"), "--certs", &path("")];
        let options = [
            "--requirements",
            &path("verifier.toml"),
            "--host-data",
            "any",
            "--at",
            "2024-06-01T00:00:00Z",
        ];
        Ended::of(&[&words[..], &options].concat())
    }
}

macro_rules! milan {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../vmm/attestation/verifier/fixtures/milan/", $name)),
        )
    };
}

const MILAN: [(&str, &[u8]); 5] = [
    milan!("report.hex"),
    milan!("ark.pem"),
    milan!("ask.pem"),
    milan!("vcek.der"),
    (
        "verifier.toml",
        b"revocation = \"unchecked\"\nmeasurements = [\"any\"]\nreport_data = [\"any\"]\n[minimum_tcb.milan]\nboot_loader = 3\ntee = 0\nsnp = 8\nmicrocode = 115\n",
    ),
];

/// Root hashes of the only container of a policy.
fn layers(policy: &str) -> Result<Vec<&str>> {
    let list = policy
        .split_once("\"layers\":")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list)
        .context("the policy has no layers")?;
    let hashes: Vec<&str> = list.split('"').filter(|part| part.len() == 64).collect();
    ensure!(!hashes.is_empty(), "the policy has no layers");
    Ok(hashes)
}
