//! What a configuration may hold, and what no message of it shows.

use super::*;
use crate::config::section::Trust;
use proptest::prelude::*;

fn is_invalid(text: &str) -> bool {
    matches!(Config::parse(text), Err(ConfigError::Field { .. }))
}

#[test]
fn empty_texts_are_empty_configurations() {
    for text in ["", "# nothing\n", "\n", "\u{feff}", "[registries]", "[extra-env]\n"] {
        let config = Config::parse(text).unwrap();
        assert!(config.section(&RegistryName::new("r.corp")).is_none(), "{text:?}");
        assert!(config.warnings().is_empty(), "{text:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(Config::read(&directory.path().join("none.toml")).is_ok());
    assert!(matches!(Config::read(directory.path()), Err(ConfigError::Read(..))));
}

#[test]
fn what_is_no_toml_is_told_from_what_has_another_form() {
    for text in [
        "[registries.\"a.\"\n",
        "[registries.a]\nauth='x'\n[registries.a]\n",
        "a = 1\na = 2",
        "a=\"\0\"",
        "x",
    ] {
        assert!(matches!(Config::parse(text), Err(ConfigError::Syntax { .. })), "{text:?}");
    }
    assert!(Config::from_bytes(b"\xff").unwrap_err().is_syntax());
    for text in [
        "registries = 'x'",
        "registries = []",
        "extra-env = 'x'",
        "[extra-env]\nHTTPS_PROXY = 1",
        "[extra-env]\nOTHER = ['x']",
        "[registries]\n'r.corp' = 'x'",
        "[registries.'']\n",
        "[registries.'r.corp']\ninsecure-skip-verify = 'true'",
        "[registries.'r.corp']\ninsecure-skip-verify = 1",
        "[registries.'r.corp']\npassword = 1",
        "[registries.'r.corp']\nmirror = ['x']",
        "[registries.'r.corp']\nca-certs = ['x']",
        "[registries.'r.corp']\nauth = 'u:p'",
        "[registries.'r.corp']\nfuture = ['x']",
        "[registries.r.corp]\nauth = 'QQ=='",
        "[registries.'r.corp.future']\n[registries.'r.corp.FUTURE.']\n",
    ] {
        assert!(is_invalid(text), "{text:?}: {:?}", Config::parse(text));
    }
}

#[test]
fn what_is_not_known_is_named_and_ignored() {
    let text = "top = 'hunter2'\n[other]\n[extra-env]\nPATH = 'hunter2'\n[registries.'r.corp']\nfuture = 'hunter2'\nca-certs = 'hunter2'";
    let warnings: Vec<String> = Config::parse(text).unwrap().warnings().iter().map(Warning::to_string).collect();
    for named in ["\"top\"", "\"other\"", "\"PATH\"", "\"future\"", "ca-certs"] {
        assert!(warnings.iter().any(|warning| warning.contains(named)), "{named}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 5);
    assert!(!warnings.concat().contains("hunter2"), "{warnings:?}");
}

#[test]
fn the_winner_is_used_whole() {
    let text = "[registries.'.']\ninsecure-skip-verify = true\nca-certs = 'x'\n[registries.'r.corp']\nusername = 'u'\npassword = 'p'";
    let config = Config::parse(text).unwrap();
    let section = |name: &str| config.section(&RegistryName::new(name)).unwrap();
    assert_eq!(*section("r.corp").trust(), Trust::WebPki);
    assert_eq!(*section("other.corp").trust(), Trust::SkipVerify);
    assert!(section("other.corp").has_unused_certificates());
    let standings = config.standings(&RegistryName::new("r.corp"));
    let of = |key: &str| standings.iter().find(|(section, _)| section.key().as_written() == key).unwrap().1;
    assert_eq!((of("r.corp"), of(".")), (Standing::Chosen, Standing::LessSpecific));
}

proptest! {
    /// A secret in any field, well formed or not, is in no message and in no `Debug`.
    #[test]
    fn no_message_shows_a_value(secret in "[a-z]{12,20}", field in "(password|auth|identitytoken|registrytoken|ca-certs|mirror|other)", form in 0..6) {
        let value = match form {
            0 => format!("'{secret}'"),
            1 => format!("'{secret}\n"),
            2 => format!("['{secret}']"),
            3 => secret.clone(),
            4 => format!("'''\n{secret}:\n'''"),
            _ => format!("'{secret}' {secret}"),
        };
        let text = format!("[extra-env]\nHTTPS_PROXY='http://u:{secret}@p'\n[registries.'r.corp']\nusername='u'\n{field} = {value}\n");
        let shown = match Config::parse(&text) {
            Err(error) => format!("{error} {error:?}"),
            // A mirror is no secret.
            Ok(config) if field != "mirror" => format!("{config:?} {:?}", config.access(&RegistryName::new("r.corp"), &Default::default())),
            Ok(_) => String::new(),
        };
        prop_assert!(!shown.contains(&secret), "{}", shown);
    }

    #[test]
    fn never_panics(text in "([a-z\\[\\]=\"'.\n #-]|registries|auth){0,80}") {
        let _ = Config::parse(&text);
    }
}
