//! Streams lose nothing: what is typed arrives with its end, and ten megabytes come back whole.

use crate::{images::BUSYBOX, lab::Lab};
use anyhow::{ensure, Result};
use sha2::{Digest, Sha256};

/// Numbers of `seq -w`: seven digits and a line end each, 10 MiB in all.
const LINES: u32 = 1_310_720;

pub(super) fn stdin_with_eof(lab: &Lab) -> Result<()> {
    lab.container(BUSYBOX).command(["cat"]).stdin(b"typed by the caller").run()?.exits_with(0)?.prints("typed by the caller")?;
    // wc answers only after the end of its input.
    let typed: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    lab.container(BUSYBOX).command(["wc", "-c"]).stdin(&typed).run()?.exits_with(0)?.prints("200000")?;
    lab.nothing_is_left()
}

pub(super) fn ten_megabytes(lab: &Lab) -> Result<()> {
    let mut wanted = Sha256::new();
    for n in 1..=LINES {
        wanted.update(format!("{n:07}\n"));
    }
    let ended = lab.container(BUSYBOX).command(["seq", "-w", "1", "1310720"]).run()?.exits_with(0)?;
    let bytes = ended.stdout.len();
    ensure!(bytes == LINES as usize * 8, "{bytes} bytes arrived, not {}", LINES as usize * 8);
    ensure!(Sha256::digest(&ended.stdout) == wanted.finalize(), "10 MiB arrived, but not the right ones");
    lab.nothing_is_left()
}
