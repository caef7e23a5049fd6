//! `casemate registry`: how images are pulled, and the token service that guards a registry.

mod admin;
mod serve;
mod which;

use anyhow::Result;
use clap::Subcommand;

/// Subcommands of `casemate registry`.
#[derive(Subcommand)]
pub enum Registry {
    /// Say which section, credentials, TLS mode and proxy a pull of an image uses, and why not the others
    #[command(after_help = which::EXAMPLES)]
    Which(which::Which),
    /// Run the token service of a registry: who may pull, push and delete, and which repositories are protected
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Serve),
    /// Users, projects, rules and tokens of the token service, and its audit trail
    #[command(after_help = admin::EXAMPLES)]
    Admin(admin::Admin),
}

/// Runs a subcommand. `Ok(false)`: the check failed.
pub fn run(command: Registry) -> Result<bool> {
    match command {
        Registry::Which(which) => which::run(&which)?,
        Registry::Serve(serve) => serve::run(&serve)?,
        Registry::Admin(admin) => return admin::run(admin),
    }
    Ok(true)
}
