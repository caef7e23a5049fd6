//! Streams lose nothing: input arrives with its end of file, and ten megabytes of output arrive complete.

use crate::{
    lab::{Lab, Set},
    stories::story::{BOTH, Machines, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "stdin-eof",
        about: "what is typed arrives, and so does end of file",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: stdin_with_eof,
    },
    Story {
        name: "ten-megabytes",
        about: "10 MB of output arrive complete",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: ten_megabytes,
    },
];

const BYTES: usize = 10 << 20;
/// Writes random bytes to stdout and their SHA-256 to stderr.
const SCRIPT: &str = "mkfifo /tmp/copy; sha256sum </tmp/copy >&2 & head -c 10485760 /dev/urandom | tee /tmp/copy; wait";

fn stdin_with_eof(lab: &Lab) -> Result<()> {
    lab.container(BUSYBOX)
        .command(["cat"])
        .stdin(b"typed by the caller")
        .run()?
        .exits_with(0)?
        .prints("typed by the caller")?;
    // wc prints only after end of file.
    let typed: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    lab.container(BUSYBOX)
        .command(["wc", "-c"])
        .stdin(&typed)
        .run()?
        .exits_with(0)?
        .prints("200000")?;
    lab.nothing_is_left()
}

fn ten_megabytes(lab: &Lab) -> Result<()> {
    let ended = lab.container(BUSYBOX).command(["sh", "-c", SCRIPT]).run()?.exits_with(0)?;
    ensure!(ended.stdout.len() == BYTES, "{} bytes arrived, not {BYTES}", ended.stdout.len());
    let sent = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(
        sent.starts_with(&hex::encode(Sha256::digest(&ended.stdout))),
        "10 MiB arrived, but not the bytes that were sent ({sent})"
    );
    lab.nothing_is_left()
}
