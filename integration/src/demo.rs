//! `make demo`: one container from containerd to the agent, shown step by step.

pub mod attested;
pub mod pod;

use crate::{
    lab::{Ended, Lab, Policy, Runtime, Traces},
    testbed::{
        images::{REDIS, REDIS_CHANGED},
        machine::{CONSOLE, Limits, Stuck, VMM_CONSOLE},
        snapshot::Testbed,
    },
};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

const LIMITS: Limits = Limits {
    quiet: Duration::from_secs(120),
    total: Duration::from_secs(600),
};
const SERVER_DEADLINE: Duration = Duration::from_secs(60);
/// The container's command: prints the caller's nonce and its kernel's version, then becomes the server.
const COMMAND: [&str; 3] = [
    "sh",
    "-c",
    "echo \"nonce $NONCE\"; cat /proc/version; exec redis-server --save '' --bind 127.0.0.1",
];

/// What the demo's guest is protected by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Tee {
    /// Nothing: the demo shows what the policy decides.
    #[default]
    Plain,
    /// A simulated processor: the demo shows what a verifier decides.
    Simulated,
}

impl Tee {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Simulated => "simulated",
        }
    }
}

/// On the developer's machine: runs the demo in L1 and prints its output. Returns its exit status.
pub fn show(testbed: &Testbed, dir: &Path, tee: Tee, pod: bool) -> Result<i32> {
    let mut machine = testbed.machine(dir)?;
    let pod = if pod { " --pod" } else { "" };
    let line = format!("run /job/story demo --tee {} --nonce {}{pod}", tee.name(), nonce()?);
    let mut out = std::io::stdout();
    let result = machine.run_command(&line, LIMITS, &mut |bytes| drop(out.write_all(bytes).and_then(|()| out.flush())));
    match result {
        Ok(0) => {}
        Ok(_) => show_consoles(dir, &[VMM_CONSOLE]),
        Err(Stuck::Quiet(_) | Stuck::Limit(_) | Stuck::Gone) => show_consoles(dir, &[VMM_CONSOLE, CONSOLE]),
    }
    let status = result.context("the demo's machine")?;
    machine.off();
    Ok(status)
}

fn nonce() -> Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(hex::encode(bytes))
}

fn show_consoles(dir: &Path, names: &[&str]) {
    for name in names {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
        eprintln!("--- {}\n{}", dir.join(name).display(), crate::testbed::host::tail(&bytes, 6000));
    }
}

/// In L1: runs the demo.
pub fn run(nonce: &str, tee: Tee, pod: bool) -> Result<()> {
    let lab = Lab::enter(Runtime::Casemate)?;
    match tee {
        _ if pod => pod::run(&lab),
        Tee::Plain => decided(&lab, nonce),
        Tee::Simulated => attested::run(&lab, nonce).and_then(|_| lab.nothing_is_left()),
    }
}

/// What the policy decides.
fn decided(lab: &Lab, nonce: &str) -> Result<()> {
    title("1. casemate run: one command makes a policy of an image, and runs one process under it");
    let nonce_option = format!("NONCE={nonce}");
    let words = ["sh", "-c", "echo \"nonce $NONCE\"; cat /proc/version"];
    let ended = Ended::of(&[&["casemate", "run", "--env", &nonce_option, REDIS], &words[..]].concat())?.exits_with(0)?;
    println!("{}", ended.said());
    ensure!(ended.text().contains(nonce), "the container did not print the nonce {nonce}");
    lab.nothing_is_left()?;

    title("2. A policy of one's own, and its digest");
    let policy = Policy::of(REDIS)
        .command(&COMMAND)
        .environment("NONCE=[0-9a-f]{64}")
        .exec(&["redis-cli", "ping"])
        .signals(&[9, 15])
        .generate()?;
    println!("made from\n\n{}\nthe policy\n\n{}", policy.config(), policy.text());
    println!("digest, which becomes the guest's HOST_DATA: {}", policy.digest());

    title("3. ctr run under it");
    let redis = || lab.container(REDIS).under(&policy).option("--env", &nonce_option);
    let container = redis().named("redis").command(COMMAND);
    let id = container.id().to_owned();
    let mut running = container.start_in_foreground()?;
    let words = running.first_lines(2, SERVER_DEADLINE)?;
    for line in words.lines() {
        println!("  inside: {line}");
    }
    ensure!(words.contains(nonce), "the container did not print the nonce {nonce}");
    println!(
        "  the host: {}",
        std::fs::read_to_string("/proc/version")
            .context("cannot read /proc/version")?
            .trim_end()
    );
    let stats = Ended::of(&["casemate", "stats", &id])?.exits_with(0)?.text();
    let exits = stats
        .lines()
        .find_map(|line| line.strip_prefix("exits "))
        .context("casemate stats reports no exits")?;
    println!("  exits from the guest that KVM has counted so far: {}", exits.trim());

    title("4. redis-cli ping, by exec");
    let mut n = 0;
    lab.until("redis answers PONG", SERVER_DEADLINE, || {
        n += 1;
        exec(&id, &format!("ping-{n}"), &["redis-cli", "ping"])
            .ok()
            .filter(|ended| ended.text() == "PONG")
    })?;

    title("5. Denied");
    denied(
        "another command",
        redis().named("another-command").command(["sh", "-c", "cat /etc/shadow"]).run()?,
    )?;
    let changed = lab
        .container(REDIS_CHANGED)
        .named("changed-layer")
        .under(&policy)
        .option("--env", &nonce_option)
        .command(COMMAND);
    denied("a changed layer", changed.run()?)?;
    denied(
        "an exec that the policy does not list",
        exec(&id, "unlisted", &["cat", "/etc/passwd"])?,
    )?;

    title("6. A clean stop, and what is left on the host");
    println!("on the host while it runs:\n{}", Traces::now()?.without(lab.before()));
    Ended::of(&["ctr", "task", "kill", "--signal", "SIGTERM", &id])?.exits_with(0)?;
    running.end()?.exits_with(0)?;
    lab.nothing_is_left()?;
    println!("on the host now:\n{}", Traces::now()?.without(lab.before()));
    Ok(())
}

fn exec(id: &str, exec_id: &str, words: &[&str]) -> Result<Ended> {
    Ended::of(&[&["ctr", "task", "exec", "--exec-id", exec_id, id], words].concat())
}

fn denied(what: &str, ended: Ended) -> Result<()> {
    if ended.status == 0 {
        bail!("{what} was not denied; it printed: {}", ended.said());
    }
    println!("\n  {what}:\n    {}\n", without_blob(ended.said().trim()));
    ended.mentions(" may not ")?.mentions("policyDecision<")?;
    Ok(())
}

/// A denial for people; the decision in base64 is for `casemate policy explain`.
fn without_blob(text: &str) -> String {
    match text
        .split_once("policyDecision<")
        .and_then(|(plain, rest)| Some((plain, rest.split_once('>')?)))
    {
        Some((plain, (blob, rest))) => format!("{plain}policyDecision< {} characters of base64 >{rest}", blob.trim().len()),
        None => text.to_owned(),
    }
}

fn title(text: &str) {
    println!("\n━━ {text}\n");
}
