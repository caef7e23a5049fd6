//! `casemate policy`: generates, checks and simulates policies, and explains denials.

use crate::input;
use crate::output::print;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use oci::Platform;
use policy_tools::{Config, Document, Finding, Severity, Sources, pinned};
use serde_json::json;

mod fragment;
mod image_cache;
pub mod images;
mod protection;

/// Longest error text that is searched for a denial, in bytes.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Subcommands for policies.
#[derive(Subcommand)]
pub enum Policy {
    /// Generate a policy from images, a TOML or JSON configuration, or both; the policy is written to standard output
    #[command(
        after_help = "Examples:\n  casemate policy generate docker.io/library/nginx:1.27 > policy.rego\n  \
        casemate policy generate registry.corp/team/app:1 --registries registries.toml --output policy.rego\n  \
        casemate policy generate registry.corp/team/app:1 --platform linux/amd64/v3 > policy.rego\n  \
        casemate policy generate --config policy.toml > policy.rego\n  \
        casemate policy generate --config policy.toml --output policy.rego    # prints the digest\n  \
        casemate policy generate --config app.toml --fragment app --svn 1 > app.rego\n  \
        casemate policy generate --config policy.toml --protection registry.corp=https://registry.corp:5001 > policy.rego\n\n\
        An image of a registry is pulled once and kept in ~/.cache/casemate/images. Containers of images alone may be \
        connected to, and ended by the signals 9 and 15 and the image's own stop signal. The policy begins with the digests \
        of the images that were named, which `casemate run --policy` compares.\n\n\
        Everywhere, `-` is standard input, and a policy may be its text or base64 of it."
    )]
    Generate {
        /// Images that may run as they are: references, and paths (/…, ./…) of OCI layouts, docker save archives, skopeo dir:
        #[arg(value_name = "IMAGE", required_unless_present = "config")]
        images: Vec<String>,
        /// The configuration; a container in it with `image_name` and no layers is pulled too
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// Registry configuration, as `casemate registry which` reads it; logins of docker and podman count where it has none
        #[arg(long, value_name = "FILE")]
        registries: Option<PathBuf>,
        /// Of an index, take the image for this platform: OS[(VERSION)]/ARCHITECTURE[/VARIANT]. A guest chooses an image for
        /// linux/amd64 by itself; start any other by the digest that is printed
        #[arg(long, value_name = "PLATFORM")]
        platform: Option<Platform>,
        /// Write the policy here and print its digest instead
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// Generate a fragment with this namespace instead of a policy
        #[arg(long, value_name = "NAMESPACE", requires = "svn")]
        fragment: Option<String>,
        /// Security version of the fragment
        #[arg(long, requires = "fragment")]
        svn: Option<String>,
        /// Print the policy in base64, for an annotation
        #[arg(long)]
        base64: bool,
        /// Print JSON: policy, base64 and digest
        #[arg(long, conflicts_with_all = ["output", "base64"])]
        json: bool,
        #[command(flatten)]
        protection: protection::Protection,
    },
    /// Print the SHA-256 of a policy, which is the guest's HOST_DATA
    #[command(after_help = "Examples:\n  casemate policy digest policy.rego\n  \
        kubectl get pod web -o jsonpath='{.metadata.annotations.io\\.casemate\\.policy}' | casemate policy digest -")]
    Digest {
        /// The policy's Rego text, or base64 of it
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Find containers that can never match, missing fields and rules, and patterns that do not mean what they seem to
    #[command(after_help = "Example:\n  casemate policy check policy.rego\n\nExit code 1: there are errors; warnings alone give 0.")]
    Check {
        /// A policy or a fragment
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Evaluate the requests of a file in order, as a guest would
    #[command(
        after_help = "Example:\n  casemate policy simulate policy.rego commands.json\n\ncommands.json is an array of {\"name\": POINT, \
            \"input\": DOCUMENT}; load_fragment takes the file of an unsigned fragment as input.local_path.\n\n\
            Exit code 1: something was denied."
    )]
    Simulate {
        /// The policy
        policy: PathBuf,
        /// The requests
        commands: PathBuf,
        /// JSON array of mounts that every container may have in addition to the default ones
        #[arg(long)]
        default_mounts: Option<PathBuf>,
        /// Show the policy's answers as well
        #[arg(long)]
        results: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Explain why something was denied, each denial of a text, and what the policy would have allowed
    #[command(after_help = "Examples:\n  ctr run … 2>&1 | casemate policy explain --policy policy.rego\n  \
        kubectl describe pod web | casemate policy explain\n\nA truncated message is explained as far as possible.")]
    Explain {
        /// The error text, or `-` for standard input; within JSON too
        #[arg(default_value = "-")]
        text: String,
        /// The policy that denied
        #[arg(long, short)]
        policy: Option<PathBuf>,
        /// Print JSON, a line for each denial
        #[arg(long)]
        json: bool,
    },
    /// Convert a policy in legacy JSON to Rego, or back
    #[command(after_help = "Examples:\n  casemate policy convert old.json > policy.rego\n  casemate policy convert --to-json policy.rego")]
    Convert {
        /// The policy
        file: PathBuf,
        /// From Rego to legacy JSON
        #[arg(long)]
        to_json: bool,
    },
    /// Sign, verify and inject fragments
    #[command(subcommand)]
    Fragment(fragment::Fragment),
}

/// Runs a subcommand. `Ok(false)`: the check failed.
pub fn run(command: Policy) -> Result<bool> {
    match command {
        Policy::Generate {
            images,
            config,
            registries,
            platform,
            output,
            fragment,
            svn,
            base64,
            json,
            protection,
        } => {
            let fragment = fragment.as_deref().zip(svn.as_deref());
            let asked = images::Asked {
                registries: registries.as_deref(),
                platform: platform.as_ref(),
                roots: None,
            };
            let (text, mut warnings) = generate(config.as_deref(), &images, asked, fragment, &protection)?;
            warnings.extend(faults(&text)?);
            warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            write_policy(&text, output.as_deref(), base64, json.then_some(warnings.as_slice()))?;
        }
        Policy::Digest { file, json } => {
            let digest = hex::encode(::policy::digest(&input::policy(&file)?));
            print(&if json { json!({ "digest": digest }).to_string() } else { digest })?;
        }
        Policy::Check { file, json } => return check(&file, json),
        Policy::Simulate {
            policy,
            commands,
            default_mounts,
            results,
            json,
        } => return simulate(&policy, &commands, default_mounts.as_deref(), results, json),
        Policy::Explain { text, policy, json } => explain(&text, policy.as_deref(), json)?,
        Policy::Convert { file, to_json } => {
            let text = input::policy(&file)?;
            let converted = match to_json {
                true => Document::read(&text).map_err(|e| input::about(&file, e)).and_then(|document| {
                    let text = policy_tools::write_legacy(&document);
                    text.map_err(|e| input::about(&file, e))
                }),
                false => policy_tools::convert_legacy(&text).map_err(|e| input::about(&file, e)),
            };
            print(
                converted
                    .with_context(|| format!("cannot convert {}", input::shown(&file)))?
                    .trim_end(),
            )?;
        }
        Policy::Fragment(command) => return fragment::run(command),
    }
    Ok(true)
}

/// The text, and what its owner should know.
fn generate(
    config: Option<&Path>,
    images: &[String],
    asked: images::Asked<'_>,
    fragment: Option<(&str, &str)>,
    protection: &protection::Protection,
) -> Result<(String, Vec<String>)> {
    // Paths in the configuration are relative to it.
    let base_dir = config.and_then(Path::parent).unwrap_or(Path::new(""));
    let describe = || format!("cannot make a policy of {}", config.map_or_else(|| images.join(", "), input::shown));
    let mut parsed = match config {
        Some(config) => {
            let bytes = input::bytes(config, policy_tools::MAX_CONFIG_BYTES)?;
            Config::from_bytes(bytes, config).with_context(describe)?
        }
        None => Config::default(),
    };
    images::add(&mut parsed, images)?;
    let unprotected = protection.warnings(&parsed);
    // Without the cache all is converted again, and nothing else changes.
    let (roots, unusable) = match images::roots(&parsed) {
        Ok(roots) => (roots, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let asked = images::Asked {
        roots: roots.as_ref(),
        ..asked
    };
    let pulled = images::pull(&mut parsed, &asked)?;
    for pin in &pulled.pins {
        eprintln!("{} is {}", pin.image, pin.digest);
    }
    let mut warnings = pulled.warnings.clone();
    warnings.extend(unusable);
    warnings.extend(unprotected);
    let sources = Sources {
        base_dir,
        roots: asked.roots,
        platform: asked.platform,
    };
    let mut warn = |warning| warnings.push(warning);
    let text = match fragment {
        Some((namespace, svn)) => policy_tools::generate_fragment_warning(&parsed, namespace, svn, &sources, &mut warn),
        None => policy_tools::generate_warning(&parsed, &sources, &mut warn),
    }
    .with_context(describe)?;
    // A fragment begins with its package.
    let text = if fragment.is_some() { text } else { pinned(&text, &pulled.pins) };
    Ok((text, warnings))
}

/// What of a generated policy can never match, or does not mean what it seems to. Working directories have been warned of.
fn faults(text: &str) -> Result<Vec<String>> {
    let findings = policy_tools::check(&Document::read(text)?);
    let others = findings.into_iter().filter(|finding| finding.field != "working_dir");
    Ok(others
        .map(|finding| format!("{} {}: {}", finding.place, finding.field, finding.problem))
        .collect())
}

/// Writes the text to `output` and its digest to standard output; without `output`, the text to standard output and the digest
/// to standard error. `json`: both as JSON, with these warnings.
fn write_policy(text: &str, output: Option<&Path>, base64: bool, json: Option<&[String]>) -> Result<()> {
    use base64::Engine as _;
    let digest = hex::encode(::policy::digest(text));
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    if let Some(warnings) = json {
        let document = json!({ "policy": text, "base64": encoded, "digest": digest, "warnings": warnings });
        return print(&document.to_string());
    }
    match output {
        Some(path) => {
            let content = if base64 { encoded.as_str() } else { text };
            std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
            print(&digest)
        }
        None => {
            if base64 {
                print(&encoded)?;
            } else {
                std::io::stdout().write_all(text.as_bytes()).context("cannot write the policy")?;
            }
            eprintln!("{digest}");
            Ok(())
        }
    }
}

fn check(file: &Path, json: bool) -> Result<bool> {
    let text = input::policy(file)?;
    let document = Document::read(&text).map_err(|e| input::about(file, e));
    let document = document.with_context(|| format!("cannot check {}{}", input::shown(file), input::hint(&text)))?;
    let mut findings = policy_tools::check(&document);
    if document.package() == "policy"
        && let Err(error) = ::policy::Enforcer::new(&text)
    {
        findings.insert(
            0,
            Finding {
                severity: Severity::Error,
                place: "policy".to_owned(),
                field: String::new(),
                problem: format!("a guest would not start with it: {}", input::about(file, error)),
                count: 1,
            },
        );
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if json {
        print(&json!({ "findings": findings, "errors": errors, "warnings": findings.len() - errors }).to_string())?;
    } else {
        findings.iter().try_for_each(|finding| print(&finding.to_string()))?;
        let containers = document.list("containers").len();
        print(&format!(
            "{containers} containers, {errors} errors, {} warnings",
            findings.len() - errors
        ))?;
    }
    Ok(errors == 0)
}

fn simulate(policy: &Path, commands: &Path, default_mounts: Option<&Path>, results: bool, json: bool) -> Result<bool> {
    input::one_stdin(&[policy, commands, default_mounts.unwrap_or(Path::new(""))])?;
    let unusable = || format!("{} cannot be used", input::shown(commands));
    let requests = policy_tools::read_commands(&input::text(commands)?).with_context(unusable)?;
    let mounts: Vec<::policy::action::Mount> = match default_mounts {
        Some(path) => {
            serde_json::from_str(&input::text(path)?).with_context(|| format!("{} is not an array of mounts", input::shown(path)))?
        }
        None => Vec::new(),
    };
    let base_dir = commands.parent().unwrap_or(Path::new(""));
    let text = input::policy(policy)?;
    let outcomes = policy_tools::simulate(&text, requests, &mounts, base_dir).map_err(|e| input::about(policy, e));
    let outcomes = outcomes.with_context(|| format!("cannot judge by {}{}", input::shown(policy), input::hint(&text)))?;
    let denied = outcomes.iter().filter(|outcome| !outcome.allowed).count();
    for outcome in outcomes.iter().filter(|_| !json) {
        let reasons = outcome.reasons.join(", ");
        match (&outcome.sentence, reasons.is_empty()) {
            (None, _) => print(&format!("{} {}: ok", outcome.index, outcome.name))?,
            (Some(sentence), true) => print(&format!("{} {}: not allowed: {sentence}", outcome.index, outcome.name))?,
            (Some(_), false) => print(&format!("{} {}: not allowed: {reasons}", outcome.index, outcome.name))?,
        }
        if results && outcome.allowed {
            print(&format!("  {}", json!(outcome.result)))?;
        }
    }
    if json {
        print(&json!({ "outcomes": outcomes, "denied": denied }).to_string())?;
    } else {
        print(&format!("{} allowed, {denied} not allowed", outcomes.len() - denied))?;
    }
    Ok(denied == 0)
}

fn explain(text: &str, policy: Option<&Path>, json: bool) -> Result<()> {
    let text_path = Path::new(text);
    let text = match input::is_stdin(text_path) {
        true => {
            input::one_stdin(&[text_path, policy.unwrap_or(Path::new(""))])?;
            String::from_utf8_lossy(&input::bytes(text_path, MAX_TEXT_BYTES)?).into_owned()
        }
        false => text.to_owned(),
    };
    let document = policy.map(document).transpose()?;
    let explained = policy_tools::explain_all(&text, document.as_ref())?;
    for (index, explanation) in explained.iter().enumerate() {
        match json {
            true => print(&json!(explanation).to_string())?,
            false => print(&format!("{}{explanation}", if index > 0 { "\n" } else { "" }))?,
        }
    }
    Ok(())
}

/// The objects of a policy in a file.
fn document(path: &Path) -> Result<Document> {
    let text = input::policy(path)?;
    let document = Document::read(&text).map_err(|e| input::about(path, e));
    document.with_context(|| format!("{} cannot be used{}", input::shown(path), input::hint(&text)))
}
