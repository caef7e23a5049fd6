//! Programs that keep logins (`docker-credential-NAME get`): they get the registry's name and answer with JSON.

use super::entry::IDENTITY;
use crate::answer::plain;
use crate::credentials::Credentials;
use crate::secret::Secret;
use serde::Deserialize;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

/// A helper may ask its user something.
const WAIT: Duration = Duration::from_secs(60);
/// Most bytes of an answer.
const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// What helpers print for a registry that they do not know.
const NOT_FOUND: &str = "credentials not found";

/// Why a helper gives no login.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    #[error("{0:?} is no name of a credential helper")]
    Name(String),
    #[error("docker-credential-{0} cannot be run: {1}")]
    Run(String, io::Error),
    #[error("docker-credential-{0} failed{1}")]
    Failed(String, String),
    #[error("docker-credential-{0} did not answer within {WAIT:?}")]
    Silent(String),
    #[error("docker-credential-{0} gave no login that can be read")]
    Answer(String),
    #[error("docker-credential-{0}: {IDENTITY}")]
    Identity(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Zeroizing<String>,
}

/// Asks a helper, which is looked for in the directories of `path`; `None` if it has no login.
pub(super) async fn get(name: &str, server: &str, path: Option<PathBuf>) -> Result<Option<Credentials>, HelperError> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_name {
        return Err(HelperError::Name(name.chars().take(100).collect()));
    }
    let failed = |error| HelperError::Run(name.to_owned(), error);
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .env("PATH", path.unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let exchange = async {
        if let Some(mut stdin) = stdin {
            // A helper that does not read its question may answer all the same.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut answer = Zeroizing::new(Vec::new());
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        }
        Ok((child.wait().await?, answer))
    };
    let exchanged = tokio::time::timeout(WAIT, exchange)
        .await
        .map_err(|_| HelperError::Silent(name.to_owned()))?;
    let (status, answer) = exchanged.map_err(failed)?;
    if !status.success() {
        // A failure is words and no login.
        let words = String::from_utf8_lossy(&answer).trim().to_owned();
        return match words.contains(NOT_FOUND) {
            true => Ok(None),
            false if words.is_empty() => Err(HelperError::Failed(name.to_owned(), String::new())),
            false => Err(HelperError::Failed(name.to_owned(), format!(": {}", plain(&words)))),
        };
    }
    let unreadable = || HelperError::Answer(name.to_owned());
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| unreadable())?;
    if answer.username == "<token>" {
        return Err(HelperError::Identity(name.to_owned()));
    }
    let secret = Secret::new(answer.secret.to_string());
    let credentials = Credentials::new(Some(answer.username), Some(secret), None, None, None).map_err(|_| unreadable())?;
    Ok((!credentials.are_none()).then_some(credentials))
}
