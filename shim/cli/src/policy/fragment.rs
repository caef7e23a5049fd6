//! `casemate policy fragment`: signs, verifies and injects fragments.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use policy_fragment::{Blob, Envelope};
use policy_tools::{FRAGMENT_TYPE, Signing};
use serde_json::json;

use super::print;
use crate::input;

/// Subcommands for fragments.
#[derive(Subcommand)]
pub enum Fragment {
    /// Sign a fragment or a trust list with the key of a certificate chain's leaf
    #[command(after_help = "Example:\n  casemate policy fragment sign --key leaf.key --chain chain.pem \\\n    \
        --feed registry.example/app --svn 1 app.rego app.cose\n\n\
        Prints the issuer that the policy has to name. The key is unencrypted PKCS #8 on P-256 or P-384.")]
    Sign {
        /// The leaf's private key, PEM
        #[arg(long)]
        key: PathBuf,
        /// The certificates, PEM, leaf first and root last
        #[arg(long)]
        chain: PathBuf,
        /// Name of the fragment, as the policy names it
        #[arg(long)]
        feed: String,
        /// `did:x509:…`; default: the root's fingerprint and the leaf's common name
        #[arg(long)]
        issuer: Option<String>,
        /// Security version for the signed header
        #[arg(long)]
        svn: Option<i64>,
        /// Its intended use
        #[arg(long = "type", default_value = FRAGMENT_TYPE)]
        media_type: String,
        /// The fragment's text
        input: PathBuf,
        /// The signed fragment
        output: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify a signed fragment or trust list as a guest does
    #[command(after_help = "Example:\n  casemate policy fragment verify app.cose\n\nExit code 1: a guest would refuse it.")]
    Verify {
        /// The signed fragment
        file: PathBuf,
        /// Its intended use
        #[arg(long = "type", default_value = "")]
        media_type: String,
        /// Also print the text that was signed
        #[arg(long)]
        text: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the issuer of a certificate chain, as policies name it
    #[command(after_help = "Example:\n  casemate policy fragment issuer chain.pem")]
    Issuer {
        /// The certificates, PEM, leaf first and root last
        chain: PathBuf,
    },
    /// Print the document that injects a signed fragment into a guest
    #[command(after_help = "Example:\n  casemate policy fragment inject app.cose")]
    Inject {
        /// The signed fragment
        file: PathBuf,
        /// Its intended use
        #[arg(long = "type", default_value = "")]
        media_type: String,
    },
}

/// Runs a subcommand. `Ok(false)`: a guest would refuse the fragment.
pub fn run(command: Fragment) -> Result<bool> {
    match command {
        Fragment::Sign {
            key,
            chain,
            feed,
            issuer,
            svn,
            media_type,
            input,
            output,
            json,
        } => {
            input::one_stdin(&[&input, &key, &chain])?;
            let payload = payload(&input, &media_type)?;
            let (key, chain) = (input::text(&key)?, input::text(&chain)?);
            let signing = Signing {
                key: &key,
                chain: &chain,
                issuer: issuer.as_deref(),
                feed: &feed,
                svn,
                content_type: &media_type,
            };
            let signed = policy_tools::sign(&payload, &signing).with_context(|| format!("cannot sign {}", input::shown(&input)))?;
            std::fs::write(&output, &signed).with_context(|| format!("cannot write {}", output.display()))?;
            let issuer = issuer.map_or_else(|| policy_tools::issuer_of(&chain), Ok)?;
            print(&if json {
                json!({ "issuer": issuer, "feed": feed, "svn": svn }).to_string()
            } else {
                issuer
            })?;
        }
        Fragment::Verify {
            file,
            media_type,
            text,
            json,
        } => return verify(&file, &media_type, text, json),
        Fragment::Issuer { chain } => print(&policy_tools::issuer_of(&input::text(&chain)?)?)?,
        Fragment::Inject { file, media_type } => print(&policy_tools::injection(&media_type, &input::signed(&file)?)?)?,
    }
    Ok(true)
}

fn verify(file: &Path, media_type: &str, text: bool, json: bool) -> Result<bool> {
    let (mut document, payload) = match Blob::open(media_type, &input::signed(file)?) {
        Ok(Blob::Fragment(fragment)) => {
            if let Err(error) = is_rego(&fragment.rego) {
                return refused(&format!("{error:#}"), json);
            }
            let receipts: Vec<_> = fragment
                .receipts
                .iter()
                .map(|receipt| json!({ "ledger": receipt.issuer(), "key": receipt.kid() }))
                .collect();
            let document = json!({
                "kind": "fragment", "issuer": fragment.issuer.as_str(), "feed": fragment.feed.as_str(), "svn": fragment.svn, "receipts": receipts,
            });
            (document, Some(fragment.rego))
        }
        Ok(Blob::TrustList(list)) => {
            let ledgers: serde_json::Map<_, _> = list
                .ledgers
                .iter()
                .map(|(ledger, keys)| (ledger.clone(), keys.iter().map(|key| key.kid()).collect::<Vec<_>>().into()))
                .collect();
            let document = json!({
                "kind": "trust list", "issuer": list.issuer.as_str(), "feed": list.subject.as_str(), "svn": list.svn, "ledgers": ledgers,
            });
            (document, None)
        }
        Ok(Blob::ReferenceInfo(kind, bytes)) => {
            let mut document = json!({ "kind": kind.to_string() });
            // A guest does not prove that the chain is the issuer's; relying parties do.
            if let Ok(claims) = Envelope::open(&bytes).and_then(|envelope| envelope.claims()) {
                document["issuer"] = claims.issuer.as_str().into();
                document["feed"] = claims.feed.as_str().into();
            }
            (document, None)
        }
        Err(error) => return refused(&format!("{:#}", anyhow::Error::from(error)), json),
    };
    if json {
        if let Some(payload) = payload.filter(|_| text) {
            document["text"] = payload.into();
        }
        print(&document.to_string())?;
        return Ok(true);
    }
    for (key, value) in document.as_object().into_iter().flatten() {
        print(&format!(
            "{key:<8} {}",
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        ))?;
    }
    if let Some(payload) = payload.filter(|_| text) {
        print(payload.trim_end())?;
    }
    print("verified")?;
    Ok(true)
}

/// What is signed: a fragment's text, which may be given in base64, or the bytes of anything else.
fn payload(path: &Path, media_type: &str) -> Result<Vec<u8>> {
    match media_type == FRAGMENT_TYPE {
        true => Ok(input::policy(path)?.into_bytes()),
        false => input::bytes(path, policy_fragment::MAX_MESSAGE_BYTES as u64),
    }
}

/// Whether a fragment's text can be loaded: its first line names a namespace, and it is Rego.
fn is_rego(text: &str) -> Result<()> {
    ::policy::fragment_namespace(text)?;
    policy_tools::Document::read(text).map(drop).context("the signed text is no Rego")
}

fn refused(problem: &str, json: bool) -> Result<bool> {
    print(&if json {
        json!({ "refused": problem }).to_string()
    } else {
        format!("refused: {problem}")
    })?;
    Ok(false)
}
