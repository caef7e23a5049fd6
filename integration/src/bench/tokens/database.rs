//! A database with projects, rules and a user for each project, and the requests of these users.

use crate::testbed::host;
use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use registry_store::{NewToken, Store};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Requests, at most one for each project and repository of it.
const REQUESTS: usize = 2000;

/// A filled database.
pub struct Database {
    url: String,
    /// Requests of its users, each of whom may push.
    pub requests: Vec<Vec<u8>>,
}

impl Database {
    /// Fills a new one in `home`: `projects` projects with `rules` rules each, none of which is for the repositories that are asked
    /// for. Half of the rules have a `*`.
    pub fn fill(casemate: &Path, home: &Path, projects: usize, rules: usize) -> Result<Self> {
        let url = format!("sqlite:{}", home.join("registry.db").display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let users = runtime.block_on(users(&url, projects))?;
        let document = home.join("projects.toml");
        std::fs::write(&document, projects_text(projects, rules)).context("cannot write a file")?;
        host::run(
            Command::new(casemate)
                .args(["registry", "admin", "--database", &url, "import"])
                .arg(&document),
        )?;
        let requests = (0..REQUESTS).map(|n| request(n, &users[n % projects], n % projects)).collect();
        Ok(Self { url, requests })
    }

    /// The configuration of a service of it, with a new key.
    pub fn service(&self, casemate: &Path, home: &Path, address: &str) -> Result<PathBuf> {
        let (key, certificate) = (home.join("token.key"), home.join("token.crt"));
        host::run(
            Command::new(casemate)
                .args(["registry", "admin", "key", "new", "--algorithm", "es256", "--key"])
                .arg(&key)
                .arg("--certificate")
                .arg(&certificate),
        )?;
        let config = home.join("service.toml");
        let text = format!(
            "listen = {address:?}\nissuer = \"bench\"\nservices = [\"registry\"]\ndatabase = {:?}\n[[keys]]\nkey = {key:?}\ncertificate = {certificate:?}\n",
            self.url
        );
        std::fs::write(&config, text).context("cannot write a file")?;
        Ok(config)
    }
}

/// Users with a personal token each, whose texts are returned.
async fn users(url: &str, count: usize) -> Result<Vec<String>> {
    let store = Store::open(url).await?;
    let mut tokens = Vec::with_capacity(count);
    for n in 0..count {
        let user = store.create_user("bench", &format!("user-{n}"), None, false).await?;
        let new = NewToken::Personal {
            user,
            name: "bench".to_owned(),
            read: true,
            write: true,
            api: false,
            expires: None,
        };
        let (_, secret) = store.create_token("bench", &new).await?;
        tokens.push(secret.expose().to_owned());
    }
    store.close().await;
    Ok(tokens)
}

fn projects_text(projects: usize, rules: usize) -> String {
    let mut text = String::new();
    for project in 0..projects {
        let path = format!("group/project-{project}");
        let _ = writeln!(text, "[[project]]\npath = {path:?}\nvisibility = \"private\"");
        let _ = writeln!(text, "members = {{ user-{project} = \"developer\" }}\nrules = [");
        for rule in 0..rules {
            let star = if rule % 2 == 0 { "*" } else { "" };
            let _ = writeln!(text, "{{ pattern = \"{path}/protected-{rule}{star}\", push = \"maintainer\" }},");
        }
        text.push_str("]\n");
    }
    text
}

fn request(n: usize, token: &str, project: usize) -> Vec<u8> {
    let login = BASE64_STANDARD.encode(format!("user-{project}:{token}"));
    format!(
        "GET /jwt/auth?service=registry&scope=repository:group/project-{project}/app-{n}:pull,push HTTP/1.1\r\n\
         Host: registry\r\nAuthorization: Basic {login}\r\n\r\n"
    )
    .into_bytes()
}
