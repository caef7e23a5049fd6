//! Bytes through a container's stdout and stdin, beside runc's; the start of the container is not in the figures.

use super::ctr::{BOTH, ctr, run_words};
use super::report::Row;
use crate::images::BUSYBOX;
use crate::stories::Runtime;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

const MIB: usize = 32;
const BYTES: usize = MIB << 20;
const CHUNK: usize = 64 * 1024;

/// Both rows; one that fails does not take the other along.
pub fn measure() -> Result<Vec<Row>> {
    let row = |name: &str, once: fn(Runtime) -> Result<f64>| {
        let rates = BOTH.map(|runtime| {
            let rate = once(runtime);
            println!("{name} {}: {rate:.1?} MiB/s", runtime.short());
            rate
        });
        match rates {
            [Ok(ours), Ok(theirs)] => Row::of(name, ours, "MiB/s").beside("runc", theirs),
            [Err(error), _] | [_, Err(error)] => Row::failed(name, &error),
        }
    };
    Ok(vec![row("stdout", stdout), row("stdin", stdin)])
}

/// MiB/s from the first byte to the last.
fn stdout(runtime: Runtime) -> Result<f64> {
    let script = format!("dd if=/dev/zero bs={CHUNK} count={} 2>/dev/null", BYTES / CHUNK);
    let mut child = Running::start(runtime, "stdout", &script)?;
    let mut output = child.0.stdout.take().context("no standard output")?;
    let mut chunk = vec![0; CHUNK];
    let mut count = output.read(&mut chunk).context("cannot read")?;
    let started = Instant::now();
    while let n @ 1.. = output.read(&mut chunk).context("cannot read")? {
        count += n;
    }
    let seconds = started.elapsed().as_secs_f64();
    ensure!(count == BYTES, "{count} bytes of {BYTES} came out");
    child.end()?;
    Ok(MIB as f64 / seconds)
}

/// MiB/s from the first byte sent to the reader's word that it has the last.
fn stdin(runtime: Runtime) -> Result<f64> {
    // head takes one byte at a time where it is to take one; the rest is counted.
    let script = format!("dd bs=1 count=1 of=/dev/null 2>/dev/null; echo go; head -c {BYTES} | wc -c");
    let mut child = Running::start(runtime, "stdin", &script)?;
    let mut input = child.0.stdin.take().context("no standard input")?;
    let mut output = child.0.stdout.take().context("no standard output")?;
    input.write_all(b"x").context("cannot write")?;
    let mut go = [0; 3];
    output.read_exact(&mut go).context("the container does not read")?;
    ensure!(go == *b"go\n", "the container said something else than go");
    let started = Instant::now();
    let chunk = vec![0; CHUNK];
    for _ in 0..BYTES / CHUNK {
        input.write_all(&chunk).context("cannot write")?;
    }
    let mut count = String::new();
    // ctr sees the end of its input before the container's end.
    drop(input);
    output.read_to_string(&mut count).context("cannot read")?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(
        count.trim().parse() == Ok(BYTES),
        "the container counted {:?} of {BYTES} bytes",
        count.trim()
    );
    child.end()?;
    Ok(MIB as f64 / seconds)
}

/// A container in the foreground; killed when dropped.
struct Running(Child);

impl Running {
    fn start(runtime: Runtime, what: &str, script: &str) -> Result<Self> {
        let id = format!("{what}-{}", runtime.short());
        let words = run_words(runtime, &["--rm"], BUSYBOX, &id, &["sh", "-c", script]);
        let mut command = ctr(&words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start ctr")?))
    }

    fn end(mut self) -> Result<()> {
        let status = self.0.wait().context("cannot wait for ctr")?;
        ensure!(status.success(), "ctr ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
