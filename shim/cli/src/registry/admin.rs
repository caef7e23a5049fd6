//! `casemate registry admin`: the token service's database, changed by its operator.

mod audit;
mod document;
mod group;
mod key;
mod member;
mod named;
mod password;
mod project;
mod rule;
mod table;
mod tag_rule;
mod token;
mod user;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use registry_store::Store;
use std::path::PathBuf;
use token_service::Config;

/// The configuration that commands read unless they are told another.
pub const CONFIG: &str = "/etc/casemate/registry.toml";
/// Variable with the database's URL.
const DATABASE: &str = "CASEMATE_REGISTRY_DATABASE";
/// Who is named in the audit trail.
const BY: &str = "command line";

pub const EXAMPLES: &str = r#"Examples:
  casemate registry admin key new --key key.pem --certificate certificate.pem
  casemate registry admin --config registry.toml user add root --administrator
  casemate registry admin user add ann --password-file - < password
  casemate registry admin project add flightjs/flight --public
  casemate registry admin member set flightjs/flight ann maintainer
  casemate registry admin rule add flightjs/flight 'flightjs/flight/prod*' --push owner --delete no_one
  casemate registry admin token deploy flightjs/flight ci --login flight-ci --read --write
  casemate registry admin import rules.toml --dry-run
  casemate registry admin audit --outcome refused --since 1d --json

The service need not run, and sees changes at once. Tokens that a client has already stay valid until they run out (token_lifetime)."#;

/// What to do, and in which database.
#[derive(Args)]
pub struct Admin {
    /// The service's configuration, which names the database; default: /etc/casemate/registry.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The database itself: sqlite:PATH or postgres://…; also in CASEMATE_REGISTRY_DATABASE, which others on this host cannot read
    #[arg(long, value_name = "URL", conflicts_with = "config", global = true)]
    database: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Those who log in
    #[command(subcommand)]
    User(user::User),
    /// Groups, whose members are members of every project below them
    #[command(subcommand)]
    Group(group::Group),
    /// Projects, to which repositories belong by their names
    #[command(subcommand)]
    Project(project::Project),
    /// Roles in projects and groups
    #[command(subcommand)]
    Member(member::Member),
    /// Protection rules: who may push to and delete from repositories
    #[command(subcommand)]
    Rule(rule::Rule),
    /// Tag rules, which the registry enforces by what tokens carry
    #[command(subcommand)]
    TagRule(tag_rule::TagRule),
    /// Personal, deploy and job tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Keys with which the service signs
    #[command(subcommand)]
    Key(key::Key),
    /// Who was granted and refused what, and who changed what
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Audit),
    /// Make groups, projects, members and rules those of a file
    #[command(after_help = document::IMPORT_EXAMPLES)]
    Import(document::Import),
    /// Print groups, projects, members and rules as TOML, for `import`
    #[command(after_help = "Example:\n  casemate registry admin export > rules.toml\n\nPasswords and tokens are not in it.")]
    Export,
}

/// An open database, and how answers are printed.
struct Desk {
    store: Store,
    json: bool,
}

/// Runs a command. `Ok(false)`: a dry run has found a difference.
pub fn run(admin: Admin) -> Result<bool> {
    // Needs no database.
    if let Command::Key(key) = admin.command {
        return key::run(&key, admin.json).map(|()| true);
    }
    let url = url(admin.config, admin.database)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&url).await.context("cannot open the database")?;
        let desk = Desk { store, json: admin.json };
        let done = desk.act(admin.command).await;
        desk.store.close().await;
        done
    })
}

/// The database's URL: what the command line says goes before the environment, and that before the configuration's usual place.
fn url(config: Option<PathBuf>, database: Option<String>) -> Result<String> {
    let of_environment = || config.is_none().then(|| std::env::var(DATABASE).ok()).flatten();
    if let Some(url) = database.or_else(of_environment) {
        return Ok(url);
    }
    let path = config.unwrap_or_else(|| CONFIG.into());
    let config = Config::read(&path).with_context(|| format!("{} cannot be used", path.display()))?;
    Ok(config.database().to_owned())
}

impl Desk {
    async fn act(&self, command: Command) -> Result<bool> {
        match command {
            Command::User(user) => user::run(self, user).await?,
            Command::Group(group) => group::run(self, group).await?,
            Command::Project(project) => project::run(self, project).await?,
            Command::Member(member) => member::run(self, member).await?,
            Command::Rule(rule) => rule::run(self, rule).await?,
            Command::TagRule(rule) => tag_rule::run(self, rule).await?,
            Command::Token(token) => token::run(self, token).await?,
            Command::Audit(audit) => audit::run(self, &audit).await?,
            Command::Import(import) => return document::import(self, &import).await,
            Command::Export => document::export(self).await?,
            Command::Key(_) => bail!("keys are not in the database"),
        }
        Ok(true)
    }
}
