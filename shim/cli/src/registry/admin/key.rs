//! `casemate registry admin key`.

use crate::output::print;
use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use token_service::{KeyAlgorithm, new_key};

/// Subcommands for signing keys.
#[derive(Subcommand)]
pub enum Key {
    /// Make a private key, and the certificate that the registry's `rootcertbundle` needs; no file is overwritten
    #[command(
        after_help = "Examples:\n  casemate registry admin key new --key key.pem --certificate certificate.pem\n  \
        casemate registry admin key new --algorithm rs256 --key key-2.pem --certificate certificate-2.pem\n\nTo rotate: add the new certificate to \
        the registry's bundle and restart the registry; put its files in the place of the old ones (or put it first in `keys` of the \
        configuration and restart the service); when the last token of the old \
        key has run out (token_lifetime), remove the old key and certificate."
    )]
    New {
        /// es256 (ECDSA on P-256, fast) or rs256 (RSA with 3072 bits)
        #[arg(long, value_name = "ALGORITHM", default_value = "es256")]
        algorithm: KeyAlgorithm,
        /// File for the key (PKCS #8, PEM, mode 0600)
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// File for the certificate (PEM)
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
}

/// Runs a subcommand.
pub fn run(key: &Key, json: bool) -> Result<()> {
    let Key::New {
        algorithm,
        key,
        certificate,
    } = key;
    new_key(*algorithm, key, certificate)?;
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    match json {
        true => print(&json!({ "key": key, "certificate": certificate }).to_string()),
        false => print(&format!("key          {key}\ncertificate  {certificate}")),
    }
}
