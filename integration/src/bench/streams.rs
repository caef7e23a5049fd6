//! Throughput of a container's stdout and stdin, compared with runc, without the start of the container.

use super::ctr::{BOTH, ctr, run_words};
use super::report::Row;
use crate::lab::Runtime;
use crate::testbed::images::BUSYBOX;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

const MIB: usize = 32;
const BYTES: usize = MIB << 20;
const CHUNK: usize = 64 * 1024;

/// Measures; returns both rows. A failure of one does not affect the other.
pub fn measure() -> Result<Vec<Row>> {
    let row = |name: &str, once: fn(Runtime) -> Result<f64>| {
        let rates = BOTH.map(|runtime| {
            let rate = once(runtime);
            println!("{name} {}: {rate:.1?} MiB/s", runtime.short());
            rate
        });
        match rates {
            [Ok(ours), Ok(theirs)] => Row::of(name, ours, "MiB/s").compared_with("runc", theirs),
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

/// MiB/s from the first byte sent until the reader confirms the last.
fn stdin(runtime: Runtime) -> Result<f64> {
    // The container consumes one byte before it prints `go`, so its start is not measured. The byte count is checked afterwards.
    let script = "dd bs=1 count=1 of=/dev/null 2>/dev/null; echo go; cat >/dev/shm/in; echo in; stat -c %s /dev/shm/in";
    let mut child = Running::start(runtime, "stdin", script)?;
    let mut input = child.0.stdin.take().context("no standard input")?;
    let mut output = BufReader::new(child.0.stdout.take().context("no standard output")?);
    input.write_all(b"x").context("cannot write")?;
    says(&mut output, "go")?;
    let started = Instant::now();
    let chunk = vec![0; CHUNK];
    for _ in 0..BYTES / CHUNK {
        input.write_all(&chunk).context("cannot write")?;
    }
    // ctr closes the container's stdin when its own reaches end of file.
    drop(input);
    says(&mut output, "in")?;
    let seconds = started.elapsed().as_secs_f64();
    says(&mut output, &BYTES.to_string())?;
    child.end()?;
    Ok(MIB as f64 / seconds)
}

fn says(output: &mut impl BufRead, wanted: &str) -> Result<()> {
    let mut line = String::new();
    output.read_line(&mut line).context("cannot read")?;
    ensure!(line.trim() == wanted, "the container printed {:?}, not {wanted:?}", line.trim());
    Ok(())
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
        ensure!(status.success(), "ctr exited with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
