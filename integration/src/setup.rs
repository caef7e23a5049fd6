//! What the host must have installed, and installing it: nothing is changed without a line that says so.

use crate::{debian, host};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// A program that some step starts, and the Debian package it comes from.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// For the testbed, the guest kernel, and the tests' independent checks of what we wrote.
const TOOLS: &[Tool] = &[
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
    },
    Tool {
        program: "mke2fs",
        package: "e2fsprogs",
    },
    Tool {
        program: "depmod",
        package: "kmod",
    },
    Tool {
        program: "cpio",
        package: "cpio",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
    },
    Tool {
        program: "zstd",
        package: "zstd",
    },
    Tool {
        program: "gcc",
        package: "gcc",
    },
    Tool {
        program: "make",
        package: "make",
    },
    Tool {
        program: "ld",
        package: "binutils",
    },
    Tool {
        program: "flex",
        package: "flex",
    },
    Tool {
        program: "bison",
        package: "bison",
    },
    Tool {
        program: "bc",
        package: "bc",
    },
    Tool {
        program: "protoc",
        package: "protobuf-compiler",
    },
    Tool {
        program: "veritysetup",
        package: "cryptsetup-bin",
    },
];

/// Headers and libraries, by a file that each brings.
const FILES: &[(&str, &str)] = &[
    ("/usr/include/gelf.h", "libelf-dev"),
    ("/usr/include/openssl/opensslv.h", "libssl-dev"),
    ("/usr/lib/x86_64-linux-gnu/libseccomp.a", "libseccomp-dev"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// The oldest QEMU whose emulated SVM and snapshots the testbed was measured with.
const QEMU_MAJOR: u32 = 10;
const QEMU_PACKAGE: &str = "qemu-system-x86";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/casemate-backports.sources";

/// Debian packages that are missing, QEMU aside.
fn missing_packages() -> Vec<&'static str> {
    let tools = TOOLS
        .iter()
        .filter(|tool| host::find(tool.program).is_none())
        .map(|tool| tool.package);
    let files = FILES
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package);
    tools.chain(files).collect()
}

/// Says what is missing, in one line.
pub fn check() -> Result<()> {
    let mut missing = missing_packages();
    if !qemu_is_new_enough() {
        missing.push("qemu-system-x86 (10 or newer)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing Debian packages: {}; `make setup` installs them", missing.join(" "))
}

/// Installs what is missing.
pub fn install() -> Result<()> {
    let mut wanted: Vec<String> = missing_packages().into_iter().map(str::to_owned).collect();
    let mut arguments: Vec<String> = Vec::new();
    if !qemu_is_new_enough() {
        if host::os_release("VERSION_CODENAME").as_deref() == Some("bookworm") {
            add_backports()?;
            arguments.extend(["-t".to_owned(), "bookworm-backports".to_owned()]);
        }
        wanted.push(QEMU_PACKAGE.to_owned());
    }
    if wanted.is_empty() {
        println!("set-up: every Debian package is there");
        return Ok(());
    }
    host::require_root("installing packages")?;
    println!("set-up: apt-get install {}", wanted.join(" "));
    apt_get(&["-qq", "update"])?;
    arguments.extend(wanted);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    apt_get(&[&["-qq", "-y", "--no-install-recommends", "install"], &arguments[..]].concat())?;
    check()
}

/// Bookworm's own QEMU is 7.2; 10 comes from its backports suite, on the mirror the host already uses.
fn add_backports() -> Result<()> {
    if Path::new(BACKPORTS_FILE).exists() {
        return Ok(());
    }
    host::require_root("adding bookworm-backports to apt")?;
    let (mirror, _) = debian::mirrors()?;
    let text = format!(
        "# Added by Casemate's set-up: QEMU 10 for the testbed comes from bookworm-backports.\n\
         Types: deb\nURIs: {mirror}\nSuites: bookworm-backports\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    println!("set-up: writes {BACKPORTS_FILE} (bookworm-backports of {mirror}, for QEMU {QEMU_MAJOR}); delete it to undo");
    std::fs::write(BACKPORTS_FILE, text).with_context(|| format!("cannot write {BACKPORTS_FILE}"))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot start apt-get: the set-up knows Debian only")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

fn qemu_is_new_enough() -> bool {
    host::find("qemu-system-x86_64").is_some()
        && qemu_version()
            .ok()
            .and_then(|text| major(&text))
            .is_some_and(|major| major >= QEMU_MAJOR)
}

/// First line of `qemu-system-x86_64 --version`; snapshots are good for exactly this build.
pub fn qemu_version() -> Result<String> {
    let text = host::run(Command::new("qemu-system-x86_64").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.17"), Some(7));
        assert_eq!(major("something else"), None);
    }
}
