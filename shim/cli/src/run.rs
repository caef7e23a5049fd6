//! `casemate run`: one container under a policy of its own, from an image's name, with this terminal or these pipes.

use crate::news::Shown;
use crate::{config, input, output, pull};
use agent_protocol::escaped;
use anyhow::{Context, Result, ensure};
use clap::Args;
use container_run::{Node, Outcome, Overrides, Request, RunError};
use oci::Reference;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code when nothing was run, as with `docker run`.
const NOT_RUN: u8 = 125;
/// Exit code of what a signal ended: this, and the signal's number.
const BY_SIGNAL: u32 = 128;
/// Annotations of the sandbox's VM.
const MEMORY: &str = "io.casemate.memory";
const VCPUS: &str = "io.casemate.vcpus";

/// What to run.
#[derive(Args)]
pub struct Run {
    /// The image: a name in containerd or of a registry, or the path of an OCI layout (/…, ./…), a directory or a tar file
    image: String,
    /// Replaces the image's CMD; its ENTRYPOINT stays before it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Replaces the image's ENTRYPOINT and CMD; "" for none
    #[arg(long)]
    entrypoint: Option<String>,
    /// `NAME=VALUE` for the environment, repeatable
    #[arg(long, short)]
    env: Vec<String>,
    /// Working directory
    #[arg(long)]
    cwd: Option<String>,
    /// User and group, by name or number: `USER[:GROUP]`
    #[arg(long)]
    user: Option<String>,
    /// Give the container a terminal; default: if input and output are one
    #[arg(long, short, conflicts_with = "no_tty")]
    tty: bool,
    /// Give it no terminal
    #[arg(long)]
    no_tty: bool,
    /// Run under this policy in place of a generated one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print the policy and run nothing
    #[arg(long, conflicts_with = "policy")]
    print_policy: bool,
    /// Do not show the policy, only its digest
    #[arg(long, short)]
    quiet: bool,
    /// Memory of the VM in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Processors of the VM
    #[arg(long)]
    cpus: Option<u32>,
    /// `KEY=VALUE` for the runtime, repeatable; for example io.casemate.tee=simulated
    #[arg(long)]
    annotation: Vec<String>,
    /// Configuration of registries, for an image that is pulled: credentials, certificates, proxies
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    /// Id of the container
    #[arg(long)]
    name: Option<String>,
    /// containerd's namespace
    #[arg(long, env = "CONTAINERD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// containerd's socket
    #[arg(long, env = "CONTAINERD_ADDRESS", default_value = "/run/containerd/containerd.sock")]
    address: String,
    /// The snapshotter that unpacks layers
    #[arg(long, env = "CONTAINERD_SNAPSHOTTER", default_value = "overlayfs")]
    snapshotter: String,
}

/// Runs it and exits with its exit code.
pub fn run(run: Run) -> ExitCode {
    match run_it(run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let cause = error.downcast_ref::<RunError>();
            if let Some(RunError::Denied { decision, .. }) = cause
                && !decision.is_empty()
            {
                eprintln!("for `casemate policy explain`: {}", escaped(decision));
            }
            eprintln!("casemate: {}", escaped(&format!("{error:#}")));
            let signal = cause.and_then(RunError::signal);
            ExitCode::from(signal.and_then(|number| u8::try_from(BY_SIGNAL + number).ok()).unwrap_or(NOT_RUN))
        }
    }
}

fn run_it(run: Run) -> Result<u8> {
    let mut shown = Shown::new(run.quiet || run.print_policy);
    let registries = run.registries.clone();
    let request = request(run)?;
    let pull = async |reference: &Reference| pull::for_containerd(reference, registries.as_deref()).await;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let outcome = runtime.block_on(container_run::run(&request, pull, &mut |news| shown.show(news)));
    // A read of standard input cannot be cancelled.
    runtime.shutdown_background();
    match outcome? {
        Outcome::Exited(status) => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
        Outcome::Policy(text) => {
            output::print(text.trim_end_matches('\n'))?;
            Ok(0)
        }
    }
}

fn request(run: Run) -> Result<Request> {
    let source = input::image(&run.image)?;
    let mut annotations = BTreeMap::new();
    for entry in &run.annotation {
        let (key, value) = entry
            .split_once('=')
            .with_context(|| format!("--annotation {entry:?} is not KEY=VALUE"))?;
        annotations.insert(key.to_owned(), value.to_owned());
    }
    for (key, number) in [(MEMORY, run.memory), (VCPUS, run.cpus)] {
        if let Some(number) = number {
            let twice = annotations.insert(key.to_owned(), number.to_string()).is_some();
            ensure!(!twice, "annotation {key} is given twice");
        }
    }
    let policy = run.policy.as_deref().map(input::policy).transpose()?;
    if let Some(name) = &run.name {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        ensure!(
            !name.is_empty() && name.len() <= 76 && name.bytes().all(plain),
            "--name {name:?} is not an id: letters, digits, -, _ and ."
        );
    }
    let directories = config::directories()?;
    Ok(Request {
        address: run.address,
        namespace: run.namespace,
        snapshotter: run.snapshotter,
        source,
        name: run.name,
        overrides: Overrides {
            command: run.command,
            entrypoint: run.entrypoint,
            env: run.env,
            cwd: run.cwd,
            user: run.user,
            terminal: run.tty || (!run.no_tty && container_run::has_terminal()),
        },
        annotations,
        policy,
        policy_only: run.print_policy,
        node: Node {
            cache_dir: directories.cache_dir,
            converter: directories.converter,
        },
    })
}
