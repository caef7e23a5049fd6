//! A shell in L1, for people (a terminal) and scripts (a pipe).

use crate::testbed::{machine::Machine, snapshot::Testbed};
use anyhow::{Context, Result};
use nix::sys::termios::{self, SetArg, Termios};
use std::io::{IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Time limit until the prompt appears; typed text is held back until then.
const PROMPT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest pause between two pieces of the greeting.
const GREETED: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(50);
/// How often ^D is sent after the script's end: a program that the shell runs may consume one.
const END_OF_INPUT_EVERY: Duration = Duration::from_secs(2);
const CONTROL_D: u8 = 4;

/// Runs an interactive shell in L1; returns its exit status.
pub fn run(testbed: &Testbed, dir: &Path) -> Result<i32> {
    let mut machine = testbed.machine(dir)?;
    let terminal = UnixStream::connect(machine.terminal()).context("cannot reach the machine's terminal")?;
    let (rows, columns) = window_size();
    let kind = std::env::var("TERM")
        .ok()
        .filter(|term| term.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        .unwrap_or_else(|| "dumb".to_owned());
    machine.send(&format!("shell {kind} {rows} {columns}"))?;
    let _raw = RawTerminal::enter();
    let status = relay(&mut machine, &terminal)?;
    // Wakes the thread that reads the terminal; the thread that reads standard input ends with the process.
    let _ = terminal.shutdown(Shutdown::Both);
    machine.off();
    Ok(status)
}

fn relay(machine: &mut Machine, terminal: &UnixStream) -> Result<i32> {
    let (prompt_seen, prompt) = mpsc::channel();
    let from_shell = terminal.try_clone().context("cannot share the terminal")?;
    let output = std::thread::spawn(move || copy_output(from_shell, &prompt_seen));
    let to_shell = terminal.try_clone().context("cannot share the terminal")?;
    std::thread::spawn(move || {
        // The greeting and the prompt are complete when nothing arrives for a moment.
        let _ = prompt.recv_timeout(PROMPT_DEADLINE);
        while prompt.recv_timeout(GREETED).is_ok() {}
        copy_input(to_shell);
    });
    loop {
        if let Some(status) = machine.answered() {
            std::thread::sleep(POLL);
            return Ok(status);
        }
        if output.is_finished() {
            return Ok(1);
        }
        std::thread::sleep(POLL);
    }
}

fn copy_output(mut from: UnixStream, prompt_seen: &mpsc::Sender<()>) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        let mut out = std::io::stdout().lock();
        if out.write_all(&bytes[..n]).and_then(|()| out.flush()).is_err() {
            return;
        }
        let _ = prompt_seen.send(());
    }
}

fn copy_input(mut to: UnixStream) {
    let mut bytes = [0; 1024];
    while let Ok(n @ 1..) = std::io::stdin().read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            return;
        }
    }
    while to.write_all(&[CONTROL_D]).is_ok() {
        std::thread::sleep(END_OF_INPUT_EVERY);
    }
}

/// Rows and columns of our terminal, from stty(1).
fn window_size() -> (u16, u16) {
    let output = std::process::Command::new("stty")
        .arg("size")
        .stdin(std::process::Stdio::inherit())
        .output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let mut numbers = text
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|n| *n > 0);
    (numbers.next().unwrap_or(24), numbers.next().unwrap_or(80))
}

/// Passes every key to L1 unprocessed; dropping it restores the terminal.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
