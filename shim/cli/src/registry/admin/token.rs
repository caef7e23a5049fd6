//! `casemate registry admin token`.

use super::{BY, Desk, named, table};
use crate::gc::duration;
use crate::output::print;
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use registry_store::{NewToken, Snapshot, TokenId, TokenKind, TokenRecord};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Subcommands for tokens.
#[derive(Subcommand)]
pub enum Token {
    /// Make a token with which a user logs in in place of the password
    #[command(
        after_help = "Examples:\n  casemate registry admin token personal ann laptop --read --write --expires 90d > token\n  \
        casemate registry admin token personal ann rules --api\n\nThe token is shown once: on standard output, alone. It may do what the user may, \
        and less without --write or --read. Log in with the user's name; REST takes it as PRIVATE-TOKEN."
    )]
    Personal {
        /// The user
        user: String,
        /// What it is for
        name: String,
        /// It may pull
        #[arg(long)]
        read: bool,
        /// It may push and delete
        #[arg(long)]
        write: bool,
        /// It may use the REST API
        #[arg(long)]
        api: bool,
        /// It ends after this time, such as 12h or 90d; default: never
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// Make a token of a project, with a login of its own; it has no role, so that every push rule refuses it
    #[command(
        after_help = "Example:\n  casemate registry admin token deploy flightjs/flight cluster --login flight-cluster --read > token"
    )]
    Deploy {
        /// Path or number of the project
        project: String,
        /// What it is for
        name: String,
        /// Name to log in with
        #[arg(long)]
        login: String,
        /// It may pull (read_registry)
        #[arg(long)]
        read: bool,
        /// It may push (write_registry)
        #[arg(long)]
        write: bool,
        /// It ends after this time; default: never
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// Make a token for one CI job, which acts with the role of a user; log in as ci-token
    #[command(after_help = "Example:\n  casemate registry admin token job ann flightjs/flight --expires 1h")]
    Job {
        /// The user who started the job
        user: String,
        /// Path or number of the project that it runs for
        project: String,
        /// It ends after this time
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
        expires: Duration,
    },
    /// List tokens, without their secrets
    List,
    /// Make a token useless
    Revoke {
        /// Its number
        id: TokenId,
    },
}

/// Runs a subcommand.
pub async fn run(desk: &Desk, token: Token) -> Result<()> {
    let now = desk.now().await?;
    let new = match token {
        Token::Personal {
            user,
            name,
            read,
            write,
            api,
            expires,
        } => {
            ensure!(read || write || api, "the token may do nothing: give --read, --write or --api");
            NewToken::Personal {
                user: named::user(&now, &user)?.id,
                name,
                read,
                write,
                api,
                expires: expires.map(end).transpose()?,
            }
        }
        Token::Deploy {
            project,
            name,
            login,
            read,
            write,
            expires,
        } => {
            ensure!(read || write, "the token may do nothing: give --read or --write");
            NewToken::Deploy {
                project: named::project(&now, &project)?.id,
                name,
                login,
                read,
                write,
                expires: expires.map(end).transpose()?,
            }
        }
        Token::Job { user, project, expires } => NewToken::Job {
            user: named::user(&now, &user)?.id,
            project: named::project(&now, &project)?.id,
            expires: end(expires)?,
        },
        Token::List => {
            let mut tokens: Vec<_> = now.tokens().collect();
            tokens.sort_by_key(|token| token.id);
            let rows: Vec<_> = tokens.into_iter().map(|token| shown(&now, token)).collect();
            return table::rows(
                desk.json,
                &["id", "kind", "login", "project", "name", "may", "created", "expires"],
                &rows,
            );
        }
        Token::Revoke { id } => return Ok(desk.store.revoke_token(BY, id).await?),
    };
    let (record, secret) = desk.store.create_token(BY, &new).await?;
    if desk.json {
        let mut answer = shown(&*desk.now().await?, &record);
        answer["token"] = secret.expose().into();
        return print(&answer.to_string());
    }
    eprintln!("token {}: it is not shown again", record.id);
    print(secret.expose())
}

/// Seconds since 1970, so long from now.
fn end(after: Duration) -> Result<i64> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let end = now.checked_add(after).and_then(|end| i64::try_from(end.as_secs()).ok());
    end.context("the token would end after the end of time")
}

fn shown(now: &Snapshot, token: &TokenRecord) -> Value {
    let name = |id| now.user_by_id(id).map(|user| user.name.clone());
    let (login, may) = match &token.kind {
        TokenKind::Personal { user, read, write, api } => (name(*user), words(&[("read", *read), ("write", *write), ("api", *api)])),
        TokenKind::Deploy { login, read, write, .. } => (Some(login.clone()), words(&[("read", *read), ("write", *write)])),
        TokenKind::Job { user, .. } => (name(*user), words(&[("job", true)])),
    };
    let project = token.kind.project().and_then(|id| now.projects.by_id(id));
    json!({
        "id": token.id, "kind": token.kind.word(), "login": login, "project": project.map(|project| project.path.as_str()), "name": token.name,
        "may": may, "created": token_service::rfc3339(token.created), "expires": token.expires.map(token_service::rfc3339),
    })
}

fn words(flags: &[(&'static str, bool)]) -> Vec<&'static str> {
    flags.iter().filter(|(_, set)| *set).map(|(word, _)| *word).collect()
}
