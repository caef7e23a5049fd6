//! `casemate attest verify`: judges an attestation report by certificates and expectations that the caller gives.

mod answer;
mod fetch;

use crate::input;
use crate::output::print;
use ::attestation::{REPORT_BYTES, Report};
use anyhow::{Context, Result, ensure};
use attestation_verifier::{Check, Collateral, Expectations, MAX_COLLATERAL_BYTES, Time, Wanted, verified, verify};
use base64::Engine as _;
use clap::{Args, Subcommand};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest report file: hexadecimal with line breaks has a few KB.
const MAX_REPORT_BYTES: u64 = 16 << 10;
/// Largest requirements file, and largest manifest.
const MAX_JSON_BYTES: u64 = 1 << 20;
/// Endings of files that are certificates or revocation lists.
const ENDINGS: [&str; 5] = ["pem", "der", "crt", "cer", "crl"];
/// Most such files in a directory.
const MAX_FILES: usize = 1024;

/// Subcommands for attestation reports.
#[derive(Subcommand)]
pub enum Attest {
    /// Verify a SEV-SNP attestation report: signature, certificates, processor, and what is expected of the guest
    #[command(after_help = EXAMPLES)]
    Verify(Box<Verify>),
    /// Fetch what the verification of a report needs from a key server: chain, certificate and revocation list
    #[command(after_help = fetch::EXAMPLES)]
    Fetch(fetch::Fetch),
}

const EXAMPLES: &str = "\
Examples:
  casemate attest verify report.bin --certs certs --requirements verifier.toml --policy policy.rego \\
    --manifest guest/manifest.json --report-data $NONCE
  casemate attest verify answer.json --nonce $NONCE --log-requirements log.toml --certs certs --requirements verifier.toml \\
    --policy policy.rego --manifest guest/manifest.json
  casemate attest verify - --certs certs --requirements verifier.toml --host-data 9f86… --measurement 3ee7… < report.hex

verifier.toml:
  products = [\"genoa\", \"turin\"]        # the default also has venice; milan must be named
  measurements = [\"3ee7…\"]             # one for each number of virtual CPUs, or [\"any\"]
  host_data = [\"9f86…\"]                # SHA-256 of the guest's policy
  report_data = [\"any\"]                # the nonce, 64 bytes
  revocation = \"required\"              # or stale-allowed, unchecked
  [minimum_tcb.genoa]
  boot_loader = 10
  tee = 0
  snp = 24
  microcode = 84
  [platform_info]
  required = [\"ecc\", \"alias-check-complete\"]
  forbidden = [\"smt\"]

log.toml, of what the guest permitted:
  layers = [\"1c2d…\", \"77aa…\"]        # exactly these root hashes were mounted, ever
  only_named = true                     # every container is one of those below
  started_before = [[\"proxy\", \"app\"]]
  no_exec_since = [\"app\"]
  never = [\"external\", \"dump_stacks\"]
  [containers.proxy]
  layers = [\"1c2d…\"]                  # top layer first
  command = [\"/bin/proxy\"]
  [containers.app]
  layers = [\"77aa…\"]
It may also have `whole = true` (no entry was folded), `policy` and `fragments`, by SHA-256.

Nothing is fetched: the directory has the endorsement key's certificate, its chain and the revocation list (see `casemate attest fetch`).
The last line is `verified` (exit code 0), or `refused: ` and why (exit code 1).";

/// What to verify, and by what.
#[derive(Args)]
pub struct Verify {
    /// The report: 1184 bytes, or hexadecimal or base64 of them; with --nonce the guest's answer; `-` for standard input
    report: PathBuf,
    #[command(flatten)]
    answer: answer::Arguments,
    /// Directory with certificates and revocation lists (.pem, .der, .crt, .cer, .crl)
    #[arg(long)]
    certs: PathBuf,
    /// What is expected, in TOML or JSON
    #[arg(long)]
    requirements: Option<PathBuf>,
    /// The guest's policy, in any of its forms: the host data is the SHA-256 of its text; instead of the requirements'
    #[arg(long, value_name = "POLICY.rego", conflicts_with = "host_data")]
    policy: Option<PathBuf>,
    /// The guest image's manifest: the measurement is one of its launch digests; instead of the requirements'
    #[arg(long, value_name = "manifest.json", conflicts_with = "measurement")]
    manifest: Option<PathBuf>,
    /// Expected measurement in hexadecimal, repeatable, or `any`; instead of the requirements'
    #[arg(long)]
    measurement: Vec<String>,
    /// Expected host data in hexadecimal, or `any`; instead of the requirements'
    #[arg(long)]
    host_data: Option<String>,
    /// Expected report data in hexadecimal, or `any`; instead of the requirements'
    #[arg(long)]
    report_data: Option<String>,
    /// Trust the root certificates of this file instead of AMD's: a root of tests, or one that is not built in
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// When to verify: 2026-11-30T12:00:00Z, or seconds since 1970; default: now
    #[arg(long)]
    at: Option<Time>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand. `Ok(false)`: the report is refused.
pub fn run(command: Attest) -> Result<bool> {
    match command {
        Attest::Verify(arguments) => run_verify(&arguments),
        Attest::Fetch(arguments) => fetch::run(&arguments, &report(&arguments.report)?).map(|()| true),
    }
}

/// A report's bytes, in whatever form they are.
fn report(path: &Path) -> Result<Vec<u8>> {
    input::bytes(path, MAX_REPORT_BYTES).map(unpacked)
}

fn run_verify(arguments: &Verify) -> Result<bool> {
    let files = [
        &arguments.requirements,
        &arguments.policy,
        &arguments.manifest,
        &arguments.roots,
        arguments.answer.file(),
    ];
    let mut paths = vec![arguments.report.as_path()];
    paths.extend(files.into_iter().filter_map(|file| file.as_deref()));
    input::one_stdin(&paths)?;

    let mut expectations = expectations(arguments)?;
    let files = certificate_files(&arguments.certs)?;
    let roots = arguments.roots.as_deref().map(|path| roots(path, &mut expectations)).transpose()?;
    let now = match arguments.at {
        Some(time) => time,
        None => now()?,
    };
    let asked = answer::Asked::of(&arguments.answer)?;
    let bytes = input::bytes(&arguments.report, answer::MAX_BYTES)?;

    // From here on nothing is the caller's: what cannot be read is refused as what is wrong is.
    let judged = || -> Result<Vec<Check>> {
        let mut collateral = collateral(&files)?;
        if let Some(roots) = &roots {
            collateral.add(roots)?;
        }
        let Some(asked) = asked else {
            return Ok(verify(&Report::parse(&unpacked(bytes))?, &collateral, now, &expectations));
        };
        let answer = answer::Answer::parse(&bytes)?;
        let log = answer.log()?;
        expectations.report_data = asked.report_data(&log);
        for certificate in answer.certificates()? {
            collateral.add(&certificate)?;
        }
        let mut checks = verify(&Report::parse(&answer.report()?)?, &collateral, now, &expectations);
        checks.extend(asked.judge(&log));
        Ok(checks)
    };
    match judged() {
        Ok(checks) => print_checks(&checks, arguments.json),
        Err(error) => print_refused(&format!("{error:#}"), arguments.json),
    }
}

fn now() -> Result<Time> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Time::from_unix(since.as_secs()))
}

fn expectations(arguments: &Verify) -> Result<Expectations> {
    let mut expectations = match &arguments.requirements {
        Some(path) => requirements_text(path)?,
        None => Expectations::default(),
    };
    if let Some(path) = &arguments.manifest {
        expectations.measurements = launch_digests(path)?;
    }
    if !arguments.measurement.is_empty() {
        expectations.measurements = Wanted::parse("--measurement", &arguments.measurement)?;
    }
    if let Some(path) = &arguments.policy {
        expectations.host_data = Wanted::OneOf([Sha256::digest(input::policy(path)?).into()].into());
    }
    if let Some(text) = &arguments.host_data {
        expectations.host_data = Wanted::parse("--host-data", std::slice::from_ref(text))?;
    }
    if let Some(text) = &arguments.report_data {
        expectations.report_data = Wanted::parse("--report-data", std::slice::from_ref(text))?;
    }
    Ok(expectations)
}

/// A file of requirements in TOML or JSON.
fn requirements_text<R: DeserializeOwned>(path: &Path) -> Result<R> {
    let unusable = || format!("{} cannot be used", input::shown(path));
    let text = String::from_utf8(input::bytes(path, MAX_JSON_BYTES)?).with_context(unusable)?;
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text).with_context(unusable),
        false => toml::from_str(&text).with_context(unusable),
    }
}

/// The part of a guest image's manifest that a verifier needs.
#[derive(Deserialize)]
struct Manifest {
    /// Expected measurement in hexadecimal, by the number of virtual CPUs.
    #[serde(default)]
    launch_digests: BTreeMap<u32, String>,
}

fn launch_digests(path: &Path) -> Result<Wanted<48>> {
    let name = input::shown(path);
    let unusable = || format!("{name} cannot be used");
    let manifest: Manifest = serde_json::from_slice(&input::bytes(path, MAX_JSON_BYTES)?).with_context(unusable)?;
    let digests: Vec<String> = manifest.launch_digests.into_values().collect();
    ensure!(
        !digests.is_empty(),
        "{name} has no launch_digests; use --measurement, or a manifest of `casemate image build`"
    );
    // The word that accepts every digest is for whoever verifies, and not for an image.
    ensure!(
        !digests.iter().any(|digest| digest == "any"),
        "{name} cannot be used: launch_digests are digests"
    );
    Wanted::parse("launch_digests", &digests).with_context(unusable)
}

/// Trusts a file's root certificates and no others; they are the start of a chain, too.
fn roots(path: &Path, expectations: &mut Expectations) -> Result<Vec<u8>> {
    let bytes = input::bytes(path, MAX_COLLATERAL_BYTES as u64)?;
    expectations
        .trust(&bytes)
        .with_context(|| format!("{} cannot be used", input::shown(path)))?;
    Ok(bytes)
}

/// The files of a directory that have certificates and revocation lists.
fn certificate_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let name = directory.display();
    let unreadable = || format!("cannot read {name}");
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file() {
            files.push(path);
        }
        ensure!(
            files.len() <= MAX_FILES,
            "{name} has more than {MAX_FILES} files of certificates and lists"
        );
    }
    ensure!(!files.is_empty(), "{name} has no file that ends in {}", ENDINGS.join(", "));
    // In the order of names, so that the same directory always gives the same answer.
    files.sort();
    Ok(files)
}

/// Every certificate and revocation list of some files.
fn collateral(files: &[PathBuf]) -> Result<Collateral> {
    let mut collateral = Collateral::default();
    for file in files {
        let bytes = input::bytes(file, MAX_COLLATERAL_BYTES as u64)?;
        collateral
            .add(&bytes)
            .with_context(|| format!("{} cannot be used", file.display()))?;
    }
    Ok(collateral)
}

/// The report's bytes, of which the input may be a text.
fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() == REPORT_BYTES {
        return bytes;
    }
    let packed: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let of_hex = hex::decode(&packed).ok();
    let of_base64 = || base64::engine::general_purpose::STANDARD.decode(&packed).ok();
    of_hex.or_else(of_base64).unwrap_or(bytes)
}

fn print_checks(checks: &[Check], json: bool) -> Result<bool> {
    let passed = verified(checks);
    if json {
        print(&json!({ "verified": passed, "checks": checks }).to_string())?;
        return Ok(passed);
    }
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in checks {
        let name = check.name;
        print(&match check.passed {
            true => format!("ok      {name:width$}  {}", check.seen),
            false => format!("FAILED  {name:width$}  {}; wanted: {}", check.seen, check.wanted),
        })?;
    }
    let mut failed: Vec<&str> = checks.iter().filter(|check| !check.passed).map(|check| check.name).collect();
    // Each requirement of the log is a check.
    failed.dedup();
    print(&match passed {
        true => "verified".to_owned(),
        false => format!("refused: {}", failed.join(", ")),
    })?;
    Ok(passed)
}

/// The report, or a certificate, cannot even be read.
fn print_refused(problem: &str, json: bool) -> Result<bool> {
    print(&match json {
        true => json!({ "verified": false, "refused": problem }).to_string(),
        false => format!("refused: {problem}"),
    })?;
    Ok(false)
}
