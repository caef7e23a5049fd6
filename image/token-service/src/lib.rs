//! The registry token service: tokens for a stock registry by roles and protection rules, over HTTP.
//!
//! One request for a token, from top to bottom: the listener limits it, `endpoint` reads it, `login` finds out who sends it,
//! `registry_rules::decide` judges it by the state of the database at that moment, the token is signed, the store records the
//! decision, and only then is it answered. The REST API and the pages edit what the decisions are made by.
#![forbid(unsafe_code)]

mod answer;
mod authority;
mod body;
mod clock;
mod config;
mod credentials;
mod endpoint;
mod journal;
mod keys;
mod listener;
mod login;
mod metrics;
mod openapi;
mod passwords;
mod peer;
mod reload;
mod rest;
mod routes;
mod serve;
mod service;
mod throttle;
mod web;

pub use clock::rfc3339;
pub use config::{Config, ConfigError};
pub use keys::{KeyAlgorithm, KeyError, NewKeyError, new_key};
pub use listener::TlsError;
pub use passwords::{PasswordError, hash_password};
pub use serve::{ServeError, serve};
