//! `casemate conformance registry`: replays registry configurations through the code that chooses how a registry is reached, and requests
//! through the token service.

mod protection;

use crate::input;
use crate::output::print;
use anyhow::{Context, Result, ensure};
use registry_client::{Access, Config, Environment, Login, PinError, PinnedReference};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Vectors {
    #[serde(default)]
    fixtures: BTreeMap<String, String>,
    #[serde(default)]
    config_cases: Vec<Case>,
    #[serde(default)]
    protection_cases: Vec<protection::Case>,
}

/// A configuration and an image, and what a pull of it must use.
#[derive(Deserialize)]
struct Case {
    id: String,
    /// `null`: the file does not exist.
    config_toml: Option<String>,
    image: String,
    #[serde(default)]
    process_env: BTreeMap<String, String>,
    expect: Value,
}

/// Replays every vector of `file`; returns how many passed and how many failed.
pub fn run(file: &Path) -> Result<(usize, usize)> {
    let name = input::shown(file);
    let vectors: Vectors =
        serde_json::from_str(&input::text(file)?).with_context(|| format!("{name} is not a list of registry vectors"))?;
    let count = vectors.config_cases.len() + vectors.protection_cases.len();
    ensure!(count > 0, "{name} holds no vectors of registries");
    let mut differences = Vec::new();
    for case in &vectors.config_cases {
        let found = replay(case, &vectors.fixtures);
        let difference = covers(&case.expect, &found, "").err();
        differences.extend(difference.map(|difference| format!("{}: {difference}", case.id)));
    }
    if !vectors.protection_cases.is_empty() {
        let bench = protection::Bench::new()?;
        for case in &vectors.protection_cases {
            let difference = bench.replay(case)?.err();
            differences.extend(difference.map(|difference| format!("{}: {difference}", case.id())));
        }
    }
    differences.iter().try_for_each(|difference| print(difference))?;
    let (passed, failed) = (count - differences.len(), differences.len());
    print(&format!("{passed} passed, {failed} failed"))?;
    Ok((passed, failed))
}

/// What a pull would use, in the vectors' form.
fn replay(case: &Case, fixtures: &BTreeMap<String, String>) -> Value {
    let filled = |text: &str| {
        let place = |text: String, (name, value): (&String, &String)| text.replace(&format!("@@{name}@@"), value.trim());
        fixtures.iter().fold(text.to_owned(), place)
    };
    let result = |name: &str| json!({ "result": name });
    let text = case.config_toml.as_deref().map(filled).unwrap_or_default();
    let config = match Config::parse(&text) {
        Ok(config) => config,
        Err(error) if error.is_syntax() => return result("config-parse"),
        Err(_) => return result("config-invalid"),
    };
    let reference: PinnedReference = match filled(&case.image).parse() {
        Ok(reference) => reference,
        Err(PinError::Unpinned(_)) => return result("unpinned-reference"),
        Err(PinError::Malformed(_)) => return result("bad-reference"),
    };
    let environment = Environment::new(|name| case.process_env.get(name).cloned());
    match config.access(reference.registry(), &environment) {
        Ok(access) => choice(&access, &reference),
        Err(_) => result("config-invalid"),
    }
}

fn choice(access: &Access, reference: &PinnedReference) -> Value {
    let trust = access.trust();
    let mut tls = json!({ "mode": trust.mode(), "plain_http_fallback": trust.allows_plain_http() });
    if let Some(count) = trust.certificates() {
        tls["ca_count"] = count.into();
    }
    json!({
        "result": "ok",
        "registry_host": reference.registry().as_str(),
        "repository": reference.repository(),
        "section": access.section(),
        "auth": {
            "bearer_challenge": login(&access.credentials().for_bearer()),
            "basic_challenge": login(&access.credentials().for_basic()),
        },
        "tls": tls,
        "proxy": access.proxies().for_url(&access.registry_url()).map(registry_client::Proxy::expose),
    })
}

/// Vectors hold the values too; a vector's are no secrets.
fn login(login: &Login<'_>) -> Value {
    let value = match login {
        Login::Anonymous => return json!({ "kind": login.kind() }),
        Login::Basic { user, password } => return json!({ "kind": login.kind(), "user": user, "password": password.expose() }),
        Login::BasicRaw(value) | Login::IdentityToken(value) | Login::RegistryToken(value) => value,
    };
    json!({ "kind": login.kind(), "value": value.expose() })
}

/// Whether every field that is expected is there and the same.
fn covers(expected: &Value, found: &Value, path: &str) -> Result<(), String> {
    let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
        return match expected == found {
            true => Ok(()),
            false => Err(format!("{path} is {found} instead of {expected}")),
        };
    };
    let within = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let field = |found: &Map<String, Value>, key: &str| found.get(key).cloned().unwrap_or(Value::Null);
    expected
        .iter()
        .try_for_each(|(key, expected)| covers(expected, &field(found, key), &within(key)))
}
