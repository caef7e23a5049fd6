//! `casemate registry serve`: the token service, until it is told to stop.

use super::admin::CONFIG;
use crate::output::print;
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use token_service::Config;
use tokio::signal::unix::{SignalKind, signal};

pub const EXAMPLES: &str = r#"Examples:
  casemate registry admin key new --key key.pem --certificate certificate.pem
  casemate registry serve --config registry.toml

The smallest configuration:
  listen = "127.0.0.1:5001"
  issuer = "casemate"
  services = ["container_registry"]
  database = "sqlite:/var/lib/casemate/registry.db"     # or postgres://…
  [[keys]]
  key = "/etc/casemate/registry/key.pem"
  certificate = "/etc/casemate/registry/certificate.pem"

The first line on standard output is the address, once requests are accepted. SIGHUP and changed files have keys and certificates read again;
SIGTERM and SIGINT end it after the requests that are being answered."#;

/// Where the configuration is.
#[derive(Args)]
pub struct Serve {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

/// Serves until a signal says to end.
pub fn run(serve: &Serve) -> Result<()> {
    let shown = serve.config.display();
    let config = Config::read(&serve.config).with_context(|| format!("{shown} cannot be used"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        // Who started this may not read it.
        let ready = |address| drop(print(&format!("listening on {address}")));
        token_service::serve(config, ready, stop)
            .await
            .context("the token service has failed")
    })
}
