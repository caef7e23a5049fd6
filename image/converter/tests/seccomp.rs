//! Converts a layer under the filter: with all rules, and again without each rule, which must kill the converter with SIGSYS.
//! A rule without which the conversion succeeds is unnecessary, and the test fails. Then makes calls that are no rule's.
//!
//! Without libtest, because the program executes itself as the converter under test.

use casemate_converter::{filter, filter::RULES, program};
use converter_protocol::{Job, Report};
use flate2::{Compression, write::GzEncoder};
use nix::{
    fcntl::{F_SETFD, FdFlag, fcntl},
    sys::signal::Signal,
};
use std::{
    fs::File,
    io::{self, Read, Write, pipe},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::ExitStatusExt,
    },
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
};

/// Environment variable of a converter under test: the rule to omit.
const WITHOUT: &str = "CASEMATE_TEST_WITHOUT";
/// Environment variable of a process that makes one call under the filter.
const CALL: &str = "CASEMATE_TEST_CALL";
/// What a compromised converter would try.
const CALLS: [(&str, fn()); 7] = [
    ("open", || drop(File::open("/etc/passwd"))),
    ("socket", || drop(std::net::TcpStream::connect("127.0.0.1:9"))),
    ("fork", || {
        // Of a process and not of a thread.
        // SAFETY: the child, if there is one, does nothing but end.
        unsafe {
            if libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) == 0 {
                libc::_exit(0)
            }
        }
    }),
    ("exec", || {
        // SAFETY: the kernel checks both lists, which are empty.
        let _ = unsafe { libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), 0, 0) };
    }),
    ("unlink", || drop(std::fs::remove_file("/nothing"))),
    ("kill", || {
        assert!(nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGCONT).is_ok())
    }),
    ("pipe", || drop(pipe())),
];

fn main() -> ExitCode {
    if let Ok(without) = std::env::var(WITHOUT) {
        let kept = RULES.iter().filter(|rule| rule.name != without);
        return program::run(std::env::args_os().skip(1), kept);
    }
    if let Ok(name) = std::env::var(CALL) {
        let call = CALLS.iter().find(|(other, _)| *other == name).expect("a call of the list").1;
        filter::install(RULES).expect("the filter is installed");
        call();
        return ExitCode::SUCCESS;
    }
    let failures: Vec<_> = rules().into_iter().chain(calls()).collect();
    failures.iter().for_each(|failure| eprintln!("FAILED: {failure}"));
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn rules() -> Vec<String> {
    let layer = layer();
    let (status, said) = convert("nothing", &layer);
    let report = Report::in_output(said.as_bytes());
    if !matches!(report, Some(Report::Converted(_))) || !status.success() {
        return vec![format!("with all rules: {status}: {said}")];
    }
    println!("ok: a conversion with all rules");
    // Its decoder's buffers are more than the C library keeps of what a thread frees.
    let (status, said) = convert("nothing", &zstd_layer());
    if !matches!(Report::in_output(said.as_bytes()), Some(Report::Converted(_))) {
        return vec![format!("zstd: {status}: {said}")];
    }
    println!("ok: a conversion of a zstd layer");
    let mut failures = Vec::new();
    for rule in RULES {
        if let Some(why) = rule.untested {
            println!("not tested: {}: {why}", rule.name);
            continue;
        }
        match convert(rule.name, &layer) {
            (status, _) if is_filtered(status) => println!("ok: the conversion needs {}", rule.name),
            (status, said) => failures.push(format!("without {}: {status}: {said}", rule.name)),
        }
    }
    failures
}

fn calls() -> Vec<String> {
    let mut failures = Vec::new();
    for (name, _) in CALLS {
        let myself = std::env::current_exe().expect("this program has a path");
        let status = Command::new(myself).env(CALL, name).status().expect("this program runs");
        if is_filtered(status) {
            println!("ok: {name} is killed");
        } else {
            failures.push(format!("{name}: {status}"));
        }
    }
    failures
}

fn is_filtered(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGSYS as i32)
}

/// A compressed tar with enough in it for every thread.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for n in 0..2000u32 {
        let mut header = tar::Header::new_gnu();
        header.set_size(1000);
        header.set_mode(0o644);
        let content = n.to_le_bytes().repeat(250);
        tar.append_data(&mut header, format!("directory/{n}"), content.as_slice())
            .expect("a tar in memory");
    }
    tar.into_inner().and_then(GzEncoder::finish).expect("a tar in memory")
}

/// A tar in one zstd frame.
fn zstd_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    // Bytes that do not compress.
    let content: Vec<u8> = (0..375_000u32)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).rotate_left(n).to_le_bytes())
        .collect();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", content.as_slice()).expect("a tar in memory");
    let tar = tar.into_inner().expect("a tar in memory");
    ruzstd::encoding::compress_to_vec(tar.as_slice(), ruzstd::encoding::CompressionLevel::Fastest)
}

/// Runs this program as the converter without one rule; how it ended, and what it said.
fn convert(without: &str, layer: &[u8]) -> (ExitStatus, String) {
    run(without, layer).expect("the converter is started")
}

fn run(without: &str, layer: &[u8]) -> io::Result<(ExitStatus, String)> {
    let (blob, mut feed) = pipe()?;
    let (job, mut order) = pipe()?;
    let slot = tempfile::tempfile()?;
    for fd in [job.as_fd(), slot.as_fd()] {
        fcntl(fd, F_SETFD(FdFlag::empty()))?;
    }
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--job-fd")
        .arg(job.as_raw_fd().to_string())
        .env(WITHOUT, without)
        .stdin(blob)
        .stdout(tempfile::tempfile()?)
        .stderr(Stdio::piped())
        .spawn()?;
    drop(job);
    let own = nix::unistd::geteuid().is_root();
    let sent = Job {
        slot: slot.as_raw_fd(),
        parent: std::process::id(),
        id: own.then_some(0x7800_00ff),
    };
    order.write_all(sent.to_json().as_bytes())?;
    drop(order);
    let mut said = String::new();
    thread::scope(|scope| {
        // A converter that is killed reads no further.
        scope.spawn(move || drop(feed.write_all(layer)));
        child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said)).transpose()
    })?;
    Ok((child.wait()?, said))
}
