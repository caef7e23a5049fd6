//! A converter's process from its start to its end: what it inherits, what it says, and how it is killed.
//!
//! ```text
//! start ─► the pod's cgroup ─► the job ─► … reads the blob, writes the image … ─► report ─► exit
//! ```
//! The blob is hostile, so the converter is taken for hostile once it has its job: it has a user of its own and no privileges
//! (`casemate-converter`), its report is bounded and its texts are cleaned, and it ends with whoever waits for it.

use crate::{cgroup, program, spawn_lock::spawn_lock};
use agent_protocol::guest_text;
use converter_protocol::{Job, PROGRAM, REPORT_MAX_BYTES, Report};
use layer::Converted;
use layer_cache::Slot;
use nix::{
    fcntl::{F_SETFD, FdFlag, fcntl},
    sys::signal::Signal,
    unistd::geteuid,
};
use std::{
    fs::File,
    future::Future,
    io::{self, PipeReader, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    pin::Pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    process::{Child, Command},
    sync::oneshot,
    time::timeout,
};

/// First user and group id of converters, one for each slot: behind those of VMMs (`vm::spawn`), before systemd's foreign ids.
const FIRST_ID: u32 = 0x7800_0000;
/// The longest conversion. The largest layer takes ten minutes on a slow disk; whoever has a slot for longer keeps it from others.
const LIMIT: Duration = Duration::from_secs(1200);

/// Why a converter made no image.
#[derive(Debug, thiserror::Error)]
pub enum ConverterError {
    /// The layer's fault, as the converter says.
    #[error("{0}")]
    Refused(String),
    /// The converter did not begin.
    #[error("{PROGRAM} cannot begin: {0}")]
    Unable(String),
    /// No converter is installed where the configuration says.
    #[error("{PROGRAM} is neither beside this shim nor in PATH: install it there, or name it as `converter` in the configuration")]
    NoProgram,
    /// The converter cannot be started.
    #[error("cannot start {}", .0.display())]
    Spawn(PathBuf, #[source] io::Error),
    /// A file of the converter cannot be made.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The blob cannot be read to its end.
    #[error("the blob cannot be read")]
    Blob(#[source] io::Error),
    /// The converter said nothing that is a report.
    #[error("{PROGRAM} ended without a result ({how}){said}")]
    NoReport {
        /// How it ended.
        how: String,
        /// What it said, after a colon.
        said: String,
    },
    /// The converter said too much.
    #[error("{PROGRAM} said more than {REPORT_MAX_BYTES} bytes; it was killed")]
    Talks,
    /// The conversion takes too long.
    #[error("{PROGRAM} has not ended within {LIMIT:?}; it was killed")]
    Late,
}

/// What copies a blob into the pipe that the converter reads.
pub type Feed = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A blob to convert.
pub struct Blob {
    /// Its file, or the end of a pipe.
    pub input: OwnedFd,
    /// What must run so that the pipe fills.
    pub feed: Option<Feed>,
}

/// How converters are started for one container.
#[derive(Clone, Debug)]
pub struct Converter {
    /// The configured program.
    pub program: Option<PathBuf>,
    /// `linux.cgroupsPath` of the container.
    pub cgroups_path: String,
}

impl Converter {
    /// Converts `blob` to `image` in a process that has `slot`. Dropping the future kills the process.
    ///
    /// # Errors
    /// See [`ConverterError`]; the image is then unusable.
    pub async fn convert(&self, blob: Blob, image: File, slot: Slot) -> Result<Converted, ConverterError> {
        let Running { report, exit, _kill } = self.start(blob.input, image, slot)?;
        let feed = blob.feed.unwrap_or_else(|| Box::pin(async { Ok(()) }));
        let work = async {
            let said = with_feed(feed, read_report(report)).await?;
            let status = exit
                .await
                .map_err(|e| ConverterError::Io("wait for the converter", io::Error::other(e)))?;
            Ok((said, status))
        };
        let (said, status) = timeout(LIMIT, work).await.map_err(|_| ConverterError::Late)??;
        match Report::in_output(&said) {
            Some(Report::Converted(converted)) if status.success() => Ok(converted),
            Some(Report::Refused(text)) => Err(ConverterError::Refused(guest_text(&text))),
            Some(Report::Unable(text)) => Err(ConverterError::Unable(guest_text(&text))),
            _ => Err(ConverterError::NoReport {
                how: describe(status),
                said: after_colon(&said),
            }),
        }
    }

    /// Starts a converter with these files and nothing else, and lets it begin once it is in the pod's cgroup.
    fn start(&self, input: OwnedFd, image: File, slot: Slot) -> Result<Running, ConverterError> {
        let program = program::find(PROGRAM, self.program.as_deref()).ok_or(ConverterError::NoProgram)?;
        let pipe = || io::pipe().map_err(|e| ConverterError::Io("make a pipe for the converter", e));
        let ((job_end, mut job_pipe), (report, report_end)) = (pipe()?, pipe()?);
        let job = Job {
            slot: slot.file.as_raw_fd(),
            parent: std::process::id(),
            id: geteuid().is_root().then_some(FIRST_ID + u32::from(slot.number)),
        };
        // Every other descriptor of this process closes on exec. No other program is started while these do not.
        let lock = spawn_lock();
        for fd in [job_end.as_fd(), slot.file.as_fd()] {
            fcntl(fd, F_SETFD(FdFlag::empty())).map_err(|e| ConverterError::Io("hand files to the converter", e.into()))?;
        }
        let started = Command::new(&program)
            .arg("--job-fd")
            .arg(job_end.as_raw_fd().to_string())
            .stdin(input)
            .stdout(image)
            .stderr(Stdio::from(report_end))
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        // The converter's copy is for the time after this process's death; until then the slot is taken here, where a converter
        // that was taken over cannot free it.
        let kept = fcntl(slot.file.as_fd(), F_SETFD(FdFlag::FD_CLOEXEC));
        // With the converter's copy of the pipe alone a write fails once it has ended.
        drop(job_end);
        drop(lock);
        let child = started.map_err(|e| ConverterError::Spawn(program, e))?;
        kept.map_err(|e| ConverterError::Io("keep the converter's slot", e.into()))?;
        let running = Running::supervise(child, report, slot, &self.cgroups_path);
        // One that has ended already says why.
        let _ = job_pipe.write_all(job.to_json().as_bytes());
        Ok(running)
    }
}

/// A converter's process. Dropping this kills it.
struct Running {
    report: PipeReader,
    exit: oneshot::Receiver<ExitStatus>,
    _kill: oneshot::Sender<()>,
}

impl Running {
    /// Puts the child into a leaf of its own beside the container's, which belongs to the VMM, and waits for it in a task of its
    /// own, so that it is reaped, its slot freed and the leaf removed whatever becomes of the caller.
    fn supervise(mut child: Child, report: PipeReader, slot: Slot, cgroups_path: &str) -> Self {
        // There is one until the child is reaped.
        let pid = child.id();
        let leaves = pid
            .map(|pid| cgroup::leaves(&cgroup::of_converter(cgroups_path, pid)))
            .unwrap_or_default();
        if let Some(pid) = pid {
            cgroup::place(&leaves, "converter", pid);
        }
        let (sender, exit) = oneshot::channel();
        let (_kill, given_up) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                _ = given_up => None,
            };
            let status = match ended {
                Some(status) => status,
                None => {
                    let _ = child.start_kill();
                    child.wait().await
                }
            };
            drop(slot);
            cgroup::remove(&leaves);
            match status {
                Ok(status) => drop(sender.send(status)),
                Err(error) => log::error!("cannot wait for converter {pid:?}: {error}"),
            }
        });
        Self { report, exit, _kill }
    }
}

/// What `reader` returns, while the blob is fed. A blob that breaks off is the cause of whatever the converter says.
async fn with_feed(feed: Feed, reader: impl Future<Output = Result<Vec<u8>, ConverterError>>) -> Result<Vec<u8>, ConverterError> {
    let mut feed = Some(feed);
    let mut fed = Ok(());
    tokio::pin!(reader);
    loop {
        let step = async {
            match &mut feed {
                Some(feed) => feed.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = &mut reader => return fed.map_err(ConverterError::Blob).and(said),
            end = step => {
                fed = end;
                // Closes the pipe.
                feed = None;
            }
        }
    }
}

/// Everything that the converter says until it closes its end.
async fn read_report(pipe: PipeReader) -> Result<Vec<u8>, ConverterError> {
    let failed = |e| ConverterError::Io("read the converter's report", e);
    let mut said = Vec::new();
    let pipe = Receiver::from_owned_fd(pipe.into()).map_err(failed)?;
    pipe.take(REPORT_MAX_BYTES as u64 + 1)
        .read_to_end(&mut said)
        .await
        .map_err(failed)?;
    if said.len() > REPORT_MAX_BYTES {
        return Err(ConverterError::Talks);
    }
    Ok(said)
}

fn after_colon(said: &[u8]) -> String {
    let text = guest_text(String::from_utf8_lossy(said).trim());
    if text.is_empty() { text } else { format!(": {text}") }
}

/// How a converter ended, with what that means.
fn describe(status: ExitStatus) -> String {
    let meaning = match status.signal().and_then(|signal| Signal::try_from(signal).ok()) {
        Some(Signal::SIGSYS) => ", it made a system call that its filter forbids, so the layer may have taken it over",
        Some(Signal::SIGABRT) => ", its memory may be at the limit of 5 GiB",
        Some(Signal::SIGKILL) => ", the pod's memory may be at its limit",
        Some(Signal::SIGXFSZ) => ", the image is longer than any layer's",
        _ => "",
    };
    format!("{status}{meaning}")
}
