//! What tests of pulls need: certificate authorities, images, Debian's registry, and servers that do as they are told.
#![allow(missing_docs, reason = "names say what the parts of a test are")]
#![forbid(unsafe_code)]

pub mod authority;
pub mod image;
pub mod program;
pub mod registry;
pub mod server;
pub mod token;

use registry_client::{Config, Environment, PullError, RegistryName, Repository};
use std::error::Error;

/// A repository as a configuration reaches it, without the proxies of the machine that runs the tests.
pub fn repository(config: &str, registry: &str, name: &str) -> Repository {
    let config = Config::parse(config).unwrap();
    let access = config.access(&RegistryName::new(registry), &Environment::default()).unwrap();
    Repository::new(access, name).unwrap()
}

/// A section for a registry, with a multi-line `ca-certs`.
pub fn section(registry: &str, ca_certs: &str, rest: &str) -> String {
    format!("[registries.\"{registry}\"]\nca-certs = '''\n{ca_certs}'''\n{rest}\n")
}

/// The whole message of an error, as commands print it, and what a log of it would hold.
pub fn shown(error: &PullError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    format!("{text}\n{error:?}")
}

/// Checks that an error names its step and its reason, and no secret.
pub fn assert_says(error: &PullError, words: &[&str], secrets: &[&str]) {
    let shown = shown(error);
    let line = shown.lines().next().unwrap();
    println!("{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret:?} is in {shown:?}");
    }
}
