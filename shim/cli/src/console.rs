//! `casemate console`: runs a process in the guest outside its containers, with this terminal or these pipes. The policy's
//! exec_external decides about it.

use agent_protocol::{
    DeleteProcessRequest, ExecExternalRequest, GUEST_ID, Stdio, StreamToken, WaitProcessRequest, agent_client, guest_text, open_stream,
};
use anyhow::{Context, Result};
use clap::Args;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::UnixStream;

/// Exit code when no program was started, as with `chroot` and `docker`.
const NOT_STARTED: u8 = 125;
/// The agent must answer within this time; it evaluates the policy and starts the program.
const CALL: Duration = Duration::from_secs(120);
/// The default command: lists the guest's diagnostics.
const SHOW: [&str; 2] = ["/init", "show"];

/// The program to run, and where.
#[derive(Args)]
pub struct Console {
    /// Sandbox id (for `ctr run`: the container's id)
    id: String,
    /// Attach the program to this terminal
    #[arg(long, short)]
    tty: bool,
    /// `NAME=value` for the program's environment, repeatable; default: only the usual PATH
    #[arg(long, short)]
    env: Vec<String>,
    /// Working directory in the guest
    #[arg(long, default_value = "/")]
    cwd: String,
    /// Program and arguments; default: /init show
    #[arg(last = true)]
    command: Vec<String>,
}

/// The environment that generated policies allow such a process.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program and exits with its exit code.
pub fn run(console: Console) -> ExitCode {
    match run_in_guest(console) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("casemate: {error:#}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn run_in_guest(console: Console) -> Result<u8> {
    let sandbox = super::node::find(&console.id)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let code = runtime.block_on(attach(&sandbox.vsock_socket(), console));
    // A read of standard input cannot be cancelled.
    runtime.shutdown_background();
    code
}

/// A stream to the guest, and the token that identifies it.
async fn stream(vsock: &Path) -> Result<(UnixStream, Vec<u8>)> {
    let mut token = StreamToken([0; 16]);
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut token.0))
        .context("cannot create a token")?;
    let stream = open_stream(vsock, token).await.context("cannot open a stream to the guest")?;
    Ok((stream, token.to_field()))
}

async fn attach(vsock: &Path, console: Console) -> Result<u8> {
    let agent = agent_client(vsock).await.context("the guest does not answer")?;
    let (stdin, stdin_token) = stream(vsock).await?;
    let (stdout, stdout_token) = stream(vsock).await?;
    let (mut stderr, mut stderr_token) = (None, Vec::new());
    if !console.tty {
        let (stream, token) = stream(vsock).await?;
        (stderr, stderr_token) = (Some(stream), token);
    }
    let (height, width) = if console.tty { window() } else { (0, 0) };
    let exec_id = format!("console-{}", std::process::id());
    let request = ExecExternalRequest {
        exec_id: exec_id.clone(),
        args: match console.command {
            command if command.is_empty() => SHOW.map(str::to_owned).to_vec(),
            command => command,
        },
        env: match console.env {
            env if env.is_empty() => vec![PATH.to_owned()],
            env => env,
        },
        working_dir: console.cwd,
        stdio: Some(Stdio {
            terminal: console.tty,
            stdin_token,
            stdout_token,
            stderr_token,
            width,
            height,
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let answer = agent.exec_external(ttrpc::context::with_duration(CALL), &request).await;
    answer.map_err(denial)?;
    let _raw = if console.tty { Raw::enter()? } else { None };
    tokio::spawn(async move {
        let (_, mut to) = stdin.into_split();
        if let Ok(mut from) = duplicate(io::stdin()) {
            let _ = copy(&mut from, &mut to).await;
        }
        // The program gets end of file.
        let _ = to.shutdown().await;
    });
    let output = async {
        let (mut from, _keeps_open) = stdout.into_split();
        copy(&mut from, &mut duplicate(io::stdout())?).await
    };
    let errors = async {
        match stderr {
            Some(stream) => {
                let (mut from, _keeps_open) = stream.into_split();
                copy(&mut from, &mut duplicate(io::stderr())?).await
            }
            None => Ok(0),
        }
    };
    tokio::try_join!(output, errors).context("the streams to the guest failed")?;
    let wait = WaitProcessRequest {
        container_id: GUEST_ID.to_owned(),
        exec_id: exec_id.clone(),
        ..Default::default()
    };
    let exit = agent.wait_process(ttrpc::context::Context::default(), &wait).await;
    let exit = exit.context("the connection to the guest was lost")?;
    let delete = DeleteProcessRequest {
        container_id: GUEST_ID.to_owned(),
        exec_id,
        ..Default::default()
    };
    // The guest now keeps nothing but its exit code, so a failure does not matter.
    let _ = agent.delete_process(ttrpc::context::with_duration(CALL), &delete).await;
    Ok(u8::try_from(exit.exit_status).unwrap_or(u8::MAX))
}

/// One of the standard streams, for tasks.
fn duplicate(stream: impl AsFd) -> io::Result<tokio::fs::File> {
    let descriptor = stream.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(File::from(descriptor)))
}

/// The agent's message: a denial is written for the user.
fn denial(error: ttrpc::Error) -> anyhow::Error {
    match error {
        ttrpc::Error::RpcStatus(status) => anyhow::Error::msg(guest_text(status.message())),
        other => anyhow::Error::new(other).context("the guest does not answer"),
    }
}

/// Rows and columns of this terminal by `stty`; zeros if they are unknown.
fn window() -> (u32, u32) {
    let output = Command::new("stty").arg("size").stdin(std::process::Stdio::inherit()).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    size(&text).unwrap_or_default()
}

fn size(text: &str) -> Option<(u32, u32)> {
    let (rows, columns) = text.trim().split_once(' ')?;
    Some((rows.parse().ok()?, columns.parse().ok()?))
}

/// This terminal in raw mode; dropping this restores its settings.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).context("cannot set the terminal")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_stty_is_parsed() {
        assert_eq!(size("24 80\n"), Some((24, 80)));
        assert_eq!(size(""), None);
        assert_eq!(size("a b"), None);
    }
}
