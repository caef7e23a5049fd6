//! `casemate registry which`: how an image is pulled.

use crate::input;
use crate::output::print;
use anyhow::{Context, Result};
use clap::Args;
use registry_client::{Access, CONFIG_MAX_BYTES, Config, Environment, PinError, PinnedReference, RegistryName, Trust, logins};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const EXAMPLES: &str = "\
Examples:
  casemate registry which registries.toml registry.corp/team/app:1
  casemate registry which registries.toml nginx --json | jq .tls
  casemate registry which /dev/null ghcr.io/org/app --logins

CONFIG is the configuration that a guest gets: [registries.\"registry.corp\"] with ca-certs, username and password, auth, identitytoken,
registrytoken, insecure-skip-verify, mirror; [extra-env] with HTTP_PROXY, HTTPS_PROXY, NO_PROXY. Nothing is sent, and no secret is shown.";

/// The question.
#[derive(Args)]
pub struct Which {
    /// The registry configuration; one that does not exist is empty
    config: PathBuf,
    /// The image
    image: String,
    /// Look for a login in docker's and podman's files too, as commands on this host do; asks their credential helpers
    #[arg(long)]
    logins: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An image, pinned or not.
struct Image {
    registry: RegistryName,
    repository: String,
    pinned: bool,
}

fn image(text: &str) -> Result<Image> {
    match text.parse::<PinnedReference>() {
        Ok(pinned) => Ok(Image {
            registry: pinned.registry().clone(),
            repository: pinned.repository().to_owned(),
            pinned: true,
        }),
        Err(PinError::Unpinned(reference)) => Ok(Image {
            registry: RegistryName::new(reference.registry()),
            repository: reference.repository().to_owned(),
            pinned: false,
        }),
        Err(error) => Err(error).with_context(|| format!("{text:?} cannot be used")),
    }
}

/// Answers it.
pub fn run(which: &Which) -> Result<()> {
    let shown = input::shown(&which.config);
    let image = image(&which.image)?;
    let missing = !input::is_stdin(&which.config) && !which.config.exists();
    let config = match missing {
        true => Config::default(),
        false => {
            Config::from_bytes(&input::bytes(&which.config, CONFIG_MAX_BYTES as u64)?).with_context(|| format!("{shown} cannot be used"))?
        }
    };
    let mut warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    if missing {
        warnings.insert(0, format!("{shown} does not exist, which is the same as an empty one"));
    }
    if !image.pinned {
        warnings.push("the image has no digest: a guest pulls only what is pinned".to_owned());
    }
    let mut access = config.access(&image.registry, &Environment::of_process())?;
    if which.logins {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let stored = runtime.block_on(logins::look_up(variable, &image.registry, &image.repository))?;
        warnings.extend(stored.warnings);
        access = access.or_credentials(stored.credentials, stored.source);
    }
    let answer = answer(&image, &config, &access, &warnings);
    match which.json {
        true => print(&format!("{answer:#}")),
        false => text(&answer),
    }
}

/// The whole answer. Of credentials it has kinds and sources only.
fn answer(image: &Image, config: &Config, access: &Access, warnings: &[String]) -> Value {
    let credentials = access.credentials();
    let unused = credentials.unused().into_iter();
    let url = access.registry_url();
    let origin = access.origin();
    let proxy = access.proxies().chosen(origin.as_ref().unwrap_or(&url));
    let sections = config.standings(&image.registry).into_iter();
    let sections: Vec<Value> = sections
        .map(|(section, standing)| json!({ "key": section.key().as_written(), "reason": standing.reason() }))
        .collect();
    let ignored_certificates = config
        .section(&image.registry)
        .is_some_and(|section| section.has_unused_certificates());
    json!({
        "registry": image.registry.as_str(),
        "repository": image.repository,
        "section": access.section(),
        "sections": sections,
        "credentials": {
            "bearer_challenge": credentials.for_bearer().kind(),
            "basic_challenge": credentials.for_basic().kind(),
            "source": access.source(),
            "unused": unused.map(|(field, reason)| json!({ "field": field, "reason": reason })).collect::<Vec<_>>(),
        },
        "tls": {
            "mode": access.trust().mode(),
            "ca_count": access.trust().certificates(),
            "plain_http_fallback": access.trust().allows_plain_http(),
            "reason": tls(access.trust(), ignored_certificates),
        },
        "proxy": proxy.as_ref().ok().map(ToString::to_string),
        "proxy_reason": proxy.map_or_else(|reason| reason, registry_client::Proxy::source),
        "mirror": access.is_mirrored().then(|| origin.map_or_else(|error| error.to_string(), |url| url.to_string())),
        "warnings": warnings,
    })
}

fn tls(trust: &Trust, ignored_certificates: bool) -> &'static str {
    match trust {
        Trust::WebPki => "the web's authorities: the section has no ca-certs",
        Trust::Pinned(_) => "only the certificates in ca-certs, not the web's authorities",
        Trust::Nothing => "ca-certs holds no certificate, so that no server is trusted",
        Trust::SkipVerify if ignored_certificates => "insecure-skip-verify: any certificate; ca-certs is ignored",
        Trust::SkipVerify => "insecure-skip-verify: any certificate",
    }
}

fn text(answer: &Value) -> Result<()> {
    let of = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let line = |name: &str, value: String| print(&format!("{name:<12} {value}"));
    line("registry", format!("{}/{}", of(&answer["registry"]), of(&answer["repository"])))?;
    line(
        "section",
        answer["section"].as_str().map_or("none".to_owned(), |key| format!("{key:?}")),
    )?;
    for section in answer["sections"].as_array().into_iter().flatten() {
        if section["key"] != answer["section"] {
            line("", format!("not {:?}: {}", of(&section["key"]), of(&section["reason"])))?;
        }
    }
    let credentials = &answer["credentials"];
    let (bearer, basic) = (of(&credentials["bearer_challenge"]), of(&credentials["basic_challenge"]));
    let kinds = match bearer == basic {
        true => bearer,
        false => format!("{bearer} for a token service, {basic} otherwise"),
    };
    line("credentials", format!("{kinds} ({})", of(&credentials["source"])))?;
    for unused in credentials["unused"].as_array().into_iter().flatten() {
        line("", format!("not {}: {}", of(&unused["field"]), of(&unused["reason"])))?;
    }
    let tls = &answer["tls"];
    let count = tls["ca_count"]
        .as_u64()
        .map(|count| format!(" ({count} certificates)"))
        .unwrap_or_default();
    line("tls", format!("{}{count}: {}", of(&tls["mode"]), of(&tls["reason"])))?;
    if tls["plain_http_fallback"] == true {
        line("", "plain HTTP if nothing speaks TLS".to_owned())?;
    }
    line("proxy", format!("{} ({})", of(&answer["proxy"]), of(&answer["proxy_reason"])))?;
    if !answer["mirror"].is_null() {
        line("mirror", of(&answer["mirror"]))?;
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        line("warning", of(warning))?;
    }
    Ok(())
}
