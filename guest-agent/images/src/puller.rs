//! The puller's process as the agent sees it: how it is started, what it is told, what it says.
//!
//! The caller starts the command, because the agent has one place that starts and reaps its children.

use agent_protocol::guest_text;
use puller_protocol::{Job, NAMESERVERS_MAX, PROGRAM, PulledLayer, REPORT_MAX_BYTES, Report};
use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    net::IpAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::store::Staging;

/// User and group of the puller. No container has it unless its document says so; what the puller has open cannot be opened by name.
const ID: u32 = 0x7800_0000;
/// How an exit by a signal is reported.
const BY_SIGNAL: u32 = 128;
/// Numbers of signals that say something (signal(7)).
const SIGABRT: u32 = 6;
const SIGKILL: u32 = 9;
const SIGXFSZ: u32 = 25;
const SIGSYS: u32 = 31;

/// Why a puller pulled nothing.
#[derive(Debug, thiserror::Error)]
pub enum PullerError {
    /// As the puller says: the registry's fault, the image's, or the configuration's.
    #[error("{0}")]
    Refused(String),
    /// The puller did not begin.
    #[error("{PROGRAM} cannot begin: {0}")]
    Unable(String),
    /// The puller said nothing that is a report.
    #[error("{PROGRAM} ended without a result: {0}")]
    NoReport(String),
    /// The puller said too much.
    #[error("{PROGRAM} said more than {REPORT_MAX_BYTES} bytes")]
    Talks,
}

/// What to pull.
pub struct Request {
    /// `REGISTRY/REPOSITORY@sha256:…`.
    pub image: String,
    /// The disk with the operator's configuration of registries.
    pub configuration: Option<File>,
    /// Whom to ask for addresses of registries: the first three count (resolv.conf(5)).
    pub nameservers: Vec<IpAddr>,
    /// For how long a registry that is not there is asked again, in whole seconds.
    pub wait: Duration,
}

/// Both pipes of a puller, and its job.
pub struct Conversation {
    job: String,
    order: PipeWriter,
    report: PipeReader,
}

impl Staging {
    /// Starts a puller; `program` is its file. `spawn` starts the command and lets it inherit the descriptors under their own numbers.
    ///
    /// # Errors
    /// This process has no descriptor left, or those of `spawn`.
    pub fn start<T>(
        &self,
        program: &Path,
        request: Request,
        spawn: impl FnOnce(&mut Command, &[BorrowedFd<'_>]) -> io::Result<T>,
    ) -> io::Result<(T, Conversation)> {
        let (job_end, order) = io::pipe()?;
        let (report, report_end) = io::pipe()?;
        let job = Job {
            image: request.image,
            parent: std::process::id(),
            id: nix::unistd::geteuid().is_root().then_some(ID),
            files: self.files.iter().map(AsRawFd::as_raw_fd).collect(),
            configuration: request.configuration.as_ref().map(AsRawFd::as_raw_fd),
            known: self.known.clone(),
            free_bytes: self.free_bytes,
            nameservers: request.nameservers.into_iter().take(NAMESERVERS_MAX).collect(),
            wait_seconds: request.wait.as_secs().try_into().unwrap_or(u32::MAX),
        };
        let mut command = Command::new(program);
        command
            .arg0(PROGRAM)
            .env_clear()
            .current_dir("/")
            .stdin(job_end)
            .stdout(Stdio::null())
            .stderr(report_end);
        let inherited: Vec<_> = self.files.iter().chain(&request.configuration).map(AsFd::as_fd).collect();
        let child = spawn(&mut command, &inherited)?;
        // Holds the puller's ends of its pipes.
        drop(command);
        let conversation = Conversation {
            job: job.to_json(),
            order,
            report,
        };
        Ok((child, conversation))
    }
}

impl Conversation {
    /// Sends the job, and reads all that the puller says until it ends; blocks for as long as that takes.
    ///
    /// # Errors
    /// The report cannot be read.
    pub fn hold(mut self) -> io::Result<Vec<u8>> {
        // A puller that has ended already says why.
        let _ = self.order.write_all(self.job.as_bytes());
        drop(self.order);
        let mut said = Vec::new();
        self.report.take(REPORT_MAX_BYTES as u64 + 1).read_to_end(&mut said)?;
        Ok(said)
    }
}

/// What a puller pulled, by all that it said, and its exit code or 128 + signal.
///
/// # Errors
/// It pulled nothing.
pub fn outcome(said: &[u8], status: u32) -> Result<Vec<PulledLayer>, PullerError> {
    if said.len() > REPORT_MAX_BYTES {
        return Err(PullerError::Talks);
    }
    match Report::in_output(said) {
        Some(Report::Pulled(layers)) if status == 0 => Ok(layers),
        Some(Report::Refused(text)) => Err(PullerError::Refused(line(&text))),
        Some(Report::Unable(text)) => Err(PullerError::Unable(line(&text))),
        _ => Err(PullerError::NoReport(ended(status).to_owned())),
    }
}

/// A text for an error on one line: what a registry said may be in it.
fn line(text: &str) -> String {
    guest_text(text).replace(['\n', '\t'], " ")
}

fn ended(status: u32) -> &'static str {
    match status.checked_sub(BY_SIGNAL) {
        Some(SIGSYS) => "it made a system call that its filter forbids, so the registry or the image may have taken it over",
        Some(SIGABRT) => "its memory may be at its limit",
        Some(SIGKILL) => "it was killed; the guest's memory may be at its limit",
        Some(SIGXFSZ) => "an image is longer than any layer's",
        Some(_) => "a signal ended it",
        None => "it exited",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_of_a_puller_that_ended_well_counts() {
        let pulled = Report::Pulled(Vec::new()).to_line();
        assert_eq!(outcome(pulled.as_bytes(), 0).unwrap(), []);
        assert!(matches!(outcome(pulled.as_bytes(), BY_SIGNAL + SIGSYS), Err(PullerError::NoReport(why)) if why.contains("filter")));
        assert!(matches!(outcome(b"", 1), Err(PullerError::NoReport(_))));
        assert!(matches!(outcome(&vec![b'x'; REPORT_MAX_BYTES + 1], 0), Err(PullerError::Talks)));
        let refused = Report::Refused("the server says \u{1b}[2J\n\u{202e}no".to_owned()).to_line();
        let error = outcome(refused.as_bytes(), 1).unwrap_err();
        assert_eq!(error.to_string(), "the server says [2J no");
    }
}
