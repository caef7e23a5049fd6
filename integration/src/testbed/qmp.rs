//! The part of the QEMU Machine Protocol (QMP, `docs/interop/qmp-spec.rst`) that saving and restoring need.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time limit until QEMU opens its socket.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);
/// Time limit of an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Saving and loading take a tenth of a second; this limit is for a loaded host.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A connection to a QEMU process.
pub struct Qmp {
    write: UnixStream,
    read: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects as soon as the socket exists.
    pub fn connect(path: &Path) -> Result<Self> {
        let end = Instant::now() + OPEN_DEADLINE;
        let write = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > end => return Err(error).context("QEMU did not open its control socket"),
                Err(_) => std::thread::sleep(POLL),
            }
        };
        write.set_read_timeout(Some(ANSWER_DEADLINE)).context("cannot set a time limit")?;
        let read = BufReader::new(write.try_clone().context("cannot share the control socket")?);
        let mut qmp = Self { write, read };
        qmp.line().context("QEMU sent no greeting")?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Sends one command and returns its answer; events in between are dropped.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        self.write
            .write_all(text.as_bytes())
            .with_context(|| format!("QEMU exited before {command}"))?;
        loop {
            let mut answer = self.line().with_context(|| format!("QEMU did not answer {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Writes the device state to `file`; RAM stays in its shared file.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        self.call("stop", json!({}))?;
        self.ignore_shared_memory()?;
        self.call("migrate", json!({ "uri": format!("file:{}", file.display()) }))?;
        let end = Instant::now() + MIGRATE_DEADLINE;
        loop {
            let state = self.call("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => bail!("QEMU could not save the machine: {state}"),
                _ if Instant::now() > end => bail!("saving the machine did not end within {MIGRATE_DEADLINE:?}"),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Loads the device state of a machine that was started with `-incoming defer`, and resumes it.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        self.ignore_shared_memory()?;
        self.call("migrate-incoming", json!({ "uri": format!("file:{}", file.display()) }))?;
        let end = Instant::now() + MIGRATE_DEADLINE;
        while self.call("query-status", json!({}))?["status"] == "inmigrate" {
            if Instant::now() > end {
                bail!("restoring the machine did not end within {MIGRATE_DEADLINE:?}");
            }
            std::thread::sleep(POLL);
        }
        self.call("cont", json!({}))?;
        Ok(())
    }

    fn ignore_shared_memory(&mut self) -> Result<()> {
        self.call(
            "migrate-set-capabilities",
            json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] }),
        )?;
        Ok(())
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.read.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
