//! `casemate attest fetch`: what a report's verification needs, from a key server into a directory.

use crate::output::print;
use ::attestation::{Product, Report};
use anyhow::{Context, Result, bail, ensure};
use attestation_verifier::{Collateral, Kind, MAX_COLLATERAL_BYTES, Question, Questions};
use clap::Args;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::header::RETRY_AFTER;

/// For one answer, from name resolution to its last byte.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer.
const MAX_ANSWER_BYTES: u64 = MAX_COLLATERAL_BYTES as u64;

pub const EXAMPLES: &str = "\
Examples:
  casemate attest fetch --report report.bin --server https://kdsintf.amd.com --certs certs
  casemate attest fetch --report old.bin --product milan --server http://127.0.0.1:8080 --certs certs

Chain and certificate are asked for once: they are kept by product, chip and TCB. The revocation list is asked for each time, because it grows
old; one that is older than the one in the directory is not kept. AMD's server answers about one question in ten seconds; after `429`, run the
command again.

An answer is kept if it is what was asked for. Whether it is AMD's is for `casemate attest verify` to say.";

/// For which report, from where, to where.
#[derive(Args)]
pub struct Fetch {
    /// The report: 1184 bytes, or hexadecimal or base64 of them; `-` for standard input
    #[arg(long)]
    pub report: PathBuf,
    /// URL of the key server, without `/vcek/v1`
    #[arg(long)]
    server: String,
    /// Directory to fill, as `casemate attest verify --certs` reads it
    #[arg(long)]
    certs: PathBuf,
    /// The product, which reports of version 2 do not say: milan, genoa, turin
    #[arg(long, value_parser = product)]
    product: Option<Product>,
}

fn product(name: &str) -> Result<Product, String> {
    let known = Product::ALL.into_iter().find(|product| product.name().eq_ignore_ascii_case(name));
    known.ok_or_else(|| "known: milan, genoa, turin, venice".to_owned())
}

/// Asks for what is not there.
pub fn run(arguments: &Fetch, report: &[u8]) -> Result<()> {
    let report = Report::parse(report)?;
    let questions = Questions::about(&report, arguments.product)?;
    let directory = &arguments.certs;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let server = arguments.server.trim_end_matches('/');
    let agent = agent();

    let mut there = Collateral::default();
    for question in questions.all() {
        let path = directory.join(&question.file);
        let kept = stored(&path)?.filter(|kept| questions.judge(question.kind, kept, &there).is_ok());
        if let Some(kept) = &kept {
            there.add(kept)?;
            if question.kind != Kind::List {
                print(&format!("kept     {}", path.display()))?;
                continue;
            }
        }
        let url = format!("{server}{}", question.path);
        let answer = ask(&agent, &url).with_context(|| failed(&question, kept.is_some(), &url))?;
        questions
            .judge(question.kind, &answer, &there)
            .with_context(|| failed(&question, kept.is_some(), &url))?;
        store(&path, &answer)?;
        there.add(&answer)?;
        print(&format!("fetched  {}", path.display()))?;
    }
    if report.signing_key() == ::attestation::SigningKey::Vlek {
        print("The provider of the machine has the certificate of its loaded key (VLEK): put it beside these files.")?;
    }
    Ok(())
}

fn failed(question: &Question, kept: bool, url: &str) -> String {
    let kept = if kept { " (the one that is there is kept)" } else { "" };
    format!("cannot fetch {}{kept} from {url}", question.file)
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        // The answer to another question is none to this one.
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

/// The body of a successful answer.
fn ask(agent: &Agent, url: &str) -> Result<Vec<u8>> {
    let mut response = agent.get(url).call()?;
    let status = response.status();
    if status == ureq::http::StatusCode::TOO_MANY_REQUESTS {
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|after| after.to_str().ok()?.parse::<u32>().ok());
        let after = after.map_or("a while".to_owned(), |seconds| format!("{seconds} s"));
        bail!("the server wants fewer requests; run the command again after {after}, what was fetched is kept");
    }
    ensure!(status == ureq::http::StatusCode::OK, "the server answers {status}");
    let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
    Ok(body.read_to_vec()?)
}

/// A file that is there, unless it is larger than any answer.
fn stored(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_ANSWER_BYTES => Ok(None),
        Ok(_) => crate::input::bytes(path, MAX_ANSWER_BYTES).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file whole or not at all: `casemate attest verify` may read the directory at the same time.
fn store(path: &Path, bytes: &[u8]) -> Result<()> {
    let unwritable = || format!("cannot write {}", path.display());
    let directory = path.parent().with_context(unwritable)?;
    // Readable to all, as certificates are.
    let mut builder = tempfile::Builder::new();
    builder.permissions(Permissions::from_mode(0o644));
    let mut file = builder.tempfile_in(directory).with_context(unwritable)?;
    file.write_all(bytes).with_context(unwritable)?;
    file.as_file().sync_all().with_context(unwritable)?;
    file.persist(path).with_context(unwritable)?;
    Ok(())
}
