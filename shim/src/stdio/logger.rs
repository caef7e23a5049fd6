//! A logging program by containerd's convention: it reads the process's standard output from descriptor 3 and its
//! standard error from 4, closes (or writes) 5 when it is ready, and gets `CONTAINER_ID` and `CONTAINER_NAMESPACE`. It
//! inherits nothing else of the shim's environment or descriptors.

use crate::spawn_lock::spawn_lock;
use nix::{
    fcntl::OFlag,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal, kill},
        stat::Mode,
        wait::{Id, WaitPidFlag, waitid, waitpid},
    },
    unistd::Pid,
};
use std::{
    ffi::{CString, OsStr, OsString},
    io::{self, PipeWriter},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncReadExt, net::unix::pipe, task::JoinHandle};

/// The program must be ready within this time.
const READY: Duration = Duration::from_secs(10);
/// A program that outlives its process's streams gets SIGTERM, and SIGKILL this much later.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Highest descriptor of the convention.
const LAST: i32 = 5;

/// A running logging program. Dropping this ends it.
pub struct Logger(Arc<Mutex<Option<Pid>>>);

/// A program that has started.
pub struct Started {
    /// The program.
    pub logger: Logger,
    /// For the process's standard output.
    pub stdout: PipeWriter,
    /// For the process's standard error.
    pub stderr: PipeWriter,
    /// Waits for the program's exit.
    pub ended: JoinHandle<()>,
}

impl Logger {
    /// Starts `program` and waits until it is ready.
    pub async fn start(program: &Path, arguments: &[OsString], namespace: &str, id: &str) -> io::Result<Started> {
        let (stdout_reader, stdout) = io::pipe()?;
        let (stderr_reader, stderr) = io::pipe()?;
        let (ready, ready_writer) = io::pipe()?;
        let ends = [stdout_reader.into(), stderr_reader.into(), ready_writer.into()];
        let pid = spawn(program, arguments, namespace, id, ends)?;
        let running = Arc::new(Mutex::new(Some(pid)));
        let logger = Self(running.clone());
        let ended = tokio::task::spawn_blocking(move || wait(pid, &running));
        let mut ready = pipe::Receiver::from_owned_fd(ready.into())?;
        // An end of file, also of a program that has exited, means the same as a byte, as in containerd's own shim.
        tokio::time::timeout(READY, ready.read(&mut [0])).await.map_err(io::Error::from)??;
        Ok(Started {
            logger,
            stdout,
            stderr,
            ended,
        })
    }
}

fn lock(running: &Mutex<Option<Pid>>) -> MutexGuard<'_, Option<Pid>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the program's exit. It is reaped under the lock, so that a reused process id is never signalled.
fn wait(pid: Pid, running: &Mutex<Option<Pid>>) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
    let mut running = lock(running);
    match waitpid(pid, None) {
        Ok(status) => log::info!("logging program ended: {status:?}"),
        Err(error) => log::warn!("cannot wait for logging program {pid}: {error}"),
    }
    *running = None;
}

fn signal(running: &Mutex<Option<Pid>>, signal: Signal) -> bool {
    let running = lock(running);
    running.is_some_and(|pid| kill(pid, signal).is_ok())
}

impl Drop for Logger {
    fn drop(&mut self) {
        if signal(&self.0, Signal::SIGTERM) {
            log::warn!("a logging program has outlived its streams; it gets SIGTERM");
            let running = self.0.clone();
            std::thread::spawn(move || {
                std::thread::sleep(TERM_GRACE);
                signal(&running, Signal::SIGKILL);
            });
        }
    }
}

/// Starts the program with `ends` as its descriptors 3, 4 and 5, and /dev/null below them.
fn spawn(program: &Path, arguments: &[OsString], namespace: &str, id: &str, ends: [OwnedFd; 3]) -> io::Result<Pid> {
    let path = c_string(program.as_os_str())?;
    let mut args = vec![path.clone()];
    for argument in arguments {
        args.push(c_string(argument)?);
    }
    let environment = [
        CString::new(format!("CONTAINER_ID={id}"))?,
        CString::new(format!("CONTAINER_NAMESPACE={namespace}"))?,
    ];
    // Away from the numbers that they are duplicated to.
    let ends = ends.map(|end| above(end, LAST));
    let mut actions = PosixSpawnFileActions::init()?;
    for standard in 0..=2 {
        actions.add_open(standard, c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    let mut kept = Vec::with_capacity(ends.len());
    for (end, number) in ends.into_iter().zip(3..) {
        let end = end?;
        actions.add_dup2(end.as_raw_fd(), number)?;
        kept.push(end);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP)?;
    // Rust programs ignore SIGPIPE, and children would inherit that.
    let mut default = SigSet::empty();
    default.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&default)?;
    let _lock = spawn_lock();
    Ok(posix_spawn(path.as_c_str(), &actions, &attributes, &args, &environment)?)
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// The same open file under a number greater than `limit`.
fn above(mut file: OwnedFd, limit: i32) -> io::Result<OwnedFd> {
    let mut low = Vec::new();
    while file.as_raw_fd() <= limit {
        let copy = file.try_clone()?;
        low.push(file);
        file = copy;
    }
    Ok(file)
}
