//! `casemate policy`: makes policies, digests them, and explains their denials.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use policy_generate::Config;

/// Longest error text that is searched for a denial, in bytes.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Writes the policy of a configuration to `out` and prints its digest; without `out`, the policy goes to standard
/// output and the digest to standard error.
pub fn generate(config: &Path, out: Option<&Path>) -> Result<()> {
    let base_dir = config.parent().unwrap_or(Path::new(""));
    let text = policy_generate::generate(&Config::from_file(config)?, base_dir)
        .with_context(|| format!("cannot make a policy of {}", config.display()))?;
    let digest = hex::encode(::policy::digest(&text));
    match out {
        Some(path) => {
            std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{digest}");
        }
        None => {
            std::io::stdout().write_all(text.as_bytes()).context("cannot write the policy")?;
            eprintln!("{digest}");
        }
    }
    Ok(())
}

/// Prints the SHA-256 of a policy text.
pub fn digest(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    println!("{}", hex::encode(::policy::digest(&text)));
    Ok(())
}

/// Says in plain words why something was denied; `-` reads the error text from standard input.
pub fn explain(text: &str) -> Result<()> {
    let mut input = String::new();
    let text = if text == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_TEXT_BYTES)
            .read_to_string(&mut input)
            .context("cannot read standard input")?;
        &input
    } else {
        text
    };
    println!("{}", ::policy::explain(text)?);
    Ok(())
}
