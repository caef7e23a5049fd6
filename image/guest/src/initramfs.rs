//! The initramfs: a newc cpio archive (kernel `Documentation/driver-api/early-userspace/buffer-format.rst`),
//! the same bytes for the same inputs: entries in the order of calls, no times, ids 0, inodes numbered from 1.

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest file; the format's size field has 8 hex digits.
const FILE_MAX_BYTES: usize = 256 << 20;

/// An archive under construction.
pub struct Builder {
    bytes: Vec<u8>,
    inode: u32,
}

impl Builder {
    /// The guest's initramfs: the agent as `/init`, the launcher, the puller, the pause program, mount points, and the kernel's modules in the
    /// order in which the agent loads them.
    pub fn guest(agent: &Path, launcher: &Path, puller: &Path, pause: &Path, modules: &[PathBuf]) -> Result<Self> {
        let mut archive = Self {
            bytes: Vec::new(),
            inode: 0,
        };
        for dir in ["bin", "dev", "proc", "run", "sys", "tmp"] {
            archive.directory(dir)?;
        }
        // Linux opens /dev/console for init before devtmpfs is mounted over it.
        archive.entry("dev/console", 0o020_600, (5, 1), &[])?;
        archive.entry("init", 0o100_755, (0, 0), &stripped(agent)?)?;
        archive.entry("bin/casemate-launcher", 0o100_755, (0, 0), &stripped(launcher)?)?;
        archive.entry("bin/casemate-puller.gz", 0o100_644, (0, 0), &gzipped(&stripped(puller)?)?)?;
        archive.entry("bin/casemate-pause", 0o100_755, (0, 0), &stripped(pause)?)?;
        if !modules.is_empty() {
            archive.directory("modules")?;
        }
        for (n, module) in modules.iter().enumerate() {
            let name = module.file_name().context("a module needs a file name")?.to_string_lossy();
            archive.file(&format!("modules/{n:02}-{name}"), 0o644, module)?;
        }
        Ok(archive)
    }

    /// An archive with one program, `/init`, and an unused file `ballast` if it is not empty.
    pub fn of_program(init: &[u8], ballast: &[u8]) -> Result<Self> {
        let mut archive = Self {
            bytes: Vec::new(),
            inode: 0,
        };
        archive.directory("dev")?;
        archive.entry("dev/console", 0o020_600, (5, 1), &[])?;
        archive.entry("init", 0o100_755, (0, 0), init)?;
        if !ballast.is_empty() {
            archive.entry("ballast", 0o100_644, (0, 0), ballast)?;
        }
        Ok(archive)
    }

    /// Adds a character device in `dev`.
    pub fn character_device(&mut self, name: &str, numbers: (u32, u32)) -> Result<()> {
        self.entry(&format!("dev/{name}"), 0o020_600, numbers, &[])
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o040_755, (0, 0), &[])
    }

    /// Adds a copy of a file.
    pub fn file(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        let data = std::fs::read(from).with_context(|| format!("cannot read {} for the initramfs", from.display()))?;
        self.entry(name, 0o100_000 | mode, (0, 0), &data)
    }

    /// The finished archive.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, (0, 0), 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Result<()> {
        if data.len() > FILE_MAX_BYTES {
            bail!("{name} has {} bytes; a file of the initramfs may have {FILE_MAX_BYTES}", data.len());
        }
        self.inode += 1;
        self.header(name, mode, device, data.len() as u32);
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), size: u32) {
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A program that few guests run: unpacked it would be in the memory of each. The same bytes for the same program: no name, no time.
fn gzipped(program: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(program)?;
    Ok(gzip.finish()?)
}

/// A program without symbols and debug lines: they would be most of the initramfs, which stays in guest memory.
pub fn stripped(program: &Path) -> Result<Vec<u8>> {
    let out = program.with_extension(format!("stripped.{}", std::process::id()));
    let status = Command::new("strip")
        .arg("-o")
        .arg(&out)
        .arg(program)
        .status()
        .context("cannot run strip: `make setup` installs binutils")?;
    if !status.success() {
        bail!("strip failed on {}", program.display());
    }
    let bytes = std::fs::read(&out).with_context(|| format!("cannot read {}", out.display()))?;
    std::fs::remove_file(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    /// An archive with one program in the place of each.
    fn archive() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        Builder::guest(&program, &program, &program, &program, &[]).unwrap().into_bytes()
    }

    #[test]
    fn same_inputs_same_bytes() {
        assert_eq!(archive(), archive());
    }

    #[test]
    fn a_file_that_is_not_a_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("text");
        std::fs::write(&program, "not an ELF file").unwrap();
        let error = stripped(&program).unwrap_err().to_string();
        assert!(error.contains("text"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn cpio_lists_the_entries() {
        let Ok(mut cpio) = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            println!("skipped: cpio_lists_the_entries: cpio is not installed");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        for wanted in [
            "-rwxr-xr-x",
            " init\n",
            "crw-------",
            "dev/console\n",
            "bin/casemate-launcher\n",
            "bin/casemate-puller.gz\n",
            "bin/casemate-pause\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }
}
