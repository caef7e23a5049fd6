//! A container that runs with the caller's streams: created, started, served until it exits.

use crate::cleanup::PATIENCE;
use crate::containerd::{Containerd, ContainerdError};
use crate::fifos::{self, Fifos};
use crate::signals::{Event, Signals};
use crate::terminal::{self, Raw};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{copy, sink};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tonic::Code;

/// What ends a container whose output nobody takes any more.
const SIGKILL: u32 = 9;

/// How long containerd may be away while a container runs.
const RESTART: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Why a container did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// containerd, its shim or the guest refused.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// The streams cannot be made.
    #[error("cannot make the container's streams in {}", fifos::DIRECTORY)]
    Fifos(#[source] io::Error),
    /// The terminal cannot be set.
    #[error("cannot set the terminal")]
    Terminal(#[source] io::Error),
    /// A signal came before the container had started.
    #[error("ended by signal {0} before the container had started")]
    Interrupted(u32),
    /// A signal came while the task of a container that had ended was deleted.
    #[error("ended by signal {0} before the task was deleted")]
    Undeleted(u32),
    /// A part of this program panicked.
    #[error("waiting for the container failed within this program")]
    Panicked,
    /// Nobody takes the output.
    #[error("cannot write {stream}: the container was ended")]
    Output {
        /// Which stream.
        stream: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// A container that containerd knows.
pub struct Known<'a> {
    /// The connection.
    pub containerd: &'a Containerd,
    /// Its id.
    pub id: &'a str,
    /// Where its root file system is.
    pub snapshotter: &'a str,
    /// Its streams are one terminal.
    pub terminal: bool,
}

/// Runs it; returns its exit status. The caller deletes the task of one that did not run to its end.
pub async fn run(container: &Known<'_>, signals: &mut Signals, note: &mut dyn FnMut(String)) -> Result<u32, AttachError> {
    let (containerd, id) = (container.containerd, container.id);
    let fifos = Fifos::new(Path::new(fifos::DIRECTORY), container.terminal).map_err(AttachError::Fifos)?;
    let (stdout, stderr) = fifos.outputs().map_err(AttachError::Fifos)?;
    let starting = async {
        containerd.create_task(id, container.snapshotter, fifos.stdio()).await?;
        let exit = waiting(containerd, id);
        let input = fifos.input().map_err(AttachError::Fifos)?;
        if let (true, Some((width, height))) = (container.terminal, terminal::size()) {
            // A terminal of another size is better than none.
            let _ = containerd.resize_task(id, width, height).await;
        }
        containerd.start_task(id).await?;
        Ok::<_, AttachError>((exit, input))
    };
    let (mut exit, input) = tokio::select! {
        started = starting => started?,
        number = signals.end() => return Err(AttachError::Interrupted(number)),
    };
    let raw = match container.terminal {
        true => Some(Raw::enter().map_err(AttachError::Terminal)?),
        false => None,
    };
    let feeder = {
        let (containerd, id) = (containerd.clone(), id.to_owned());
        tokio::spawn(async move {
            let mut input = input;
            // Who reads no input does not need it.
            if let Ok(mut from) = duplicate(io::stdin()) {
                let _ = copy(&mut from, &mut input).await;
            }
            drop(input);
            let _ = containerd.close_stdin(&id).await;
        })
    };
    let mut outputs = Outputs::new();
    outputs.copy(stdout, duplicate(io::stdout()), "standard output");
    if let Some(stderr) = stderr {
        outputs.copy(stderr, duplicate(io::stderr()), "standard error");
    }
    let mut broken = None;
    let status = loop {
        tokio::select! {
            status = &mut exit => break status.map_err(|_| AttachError::Panicked)??,
            error = outputs.broken() => {
                broken.get_or_insert(error);
                pass(containerd, id, SIGKILL, note).await;
            }
            event = signals.next() => match event {
                Event::Passed(number) => pass(containerd, id, number, note).await,
                Event::Resized => if let (true, Some((width, height))) = (container.terminal, terminal::size()) {
                    let _ = containerd.resize_task(id, width, height).await;
                },
            },
        }
    };
    feeder.abort();
    // Its output ends by the deletion at the latest. Who reads it may take any time.
    tokio::select! {
        deleted = containerd.delete_task(id) => deleted?,
        number = signals.end_after(PATIENCE) => return Err(AttachError::Undeleted(number)),
    }
    tokio::select! {
        () = outputs.end() => {}
        _ = signals.end() => note("the rest of its output was not written".to_owned()),
    }
    drop(raw);
    match broken.or_else(|| outputs.failure()) {
        Some(error) => Err(error),
        None => Ok(status),
    }
}

/// Waits for the exit in the background, from before the start on. The container goes on while containerd is started again.
fn waiting(containerd: &Containerd, id: &str) -> JoinHandle<Result<u32, ContainerdError>> {
    let (containerd, id) = (containerd.clone(), id.to_owned());
    tokio::spawn(async move {
        loop {
            match containerd.wait_task(&id).await {
                Err(error) if error.is_away() && is_back(&containerd, &id).await => {}
                ended => return ended,
            }
        }
    })
}

/// Whether containerd answers again in time.
async fn is_back(containerd: &Containerd, id: &str) -> bool {
    let end = Instant::now() + RESTART;
    while Instant::now() < end {
        match containerd.has_container(id).await {
            Err(error) if error.is_away() => sleep(POLL).await,
            _ => return true,
        }
    }
    false
}

/// Sends a signal; that the container has ended meanwhile is no failure.
async fn pass(containerd: &Containerd, id: &str, number: u32, note: &mut dyn FnMut(String)) {
    match containerd.kill_task(id, number).await {
        Err(error) if error.code() != Some(Code::NotFound) => note(error.to_string()),
        _ => {}
    }
}

/// One of the standard streams, for tasks.
fn duplicate(stream: impl AsFd) -> io::Result<File> {
    let descriptor = stream.as_fd().try_clone_to_owned()?;
    Ok(File::from_std(descriptor.into()))
}

/// The copies of the outputs.
struct Outputs {
    copies: JoinSet<()>,
    failures: mpsc::Receiver<AttachError>,
    fail: mpsc::Sender<AttachError>,
}

impl Outputs {
    fn new() -> Self {
        // There are two.
        let (fail, failures) = mpsc::channel(2);
        Self {
            copies: JoinSet::new(),
            failures,
            fail,
        }
    }

    /// Copies an output until its end. One that cannot be written is read all the same: the container must not wait for it.
    fn copy(&mut self, mut from: Receiver, to: io::Result<File>, stream: &'static str) {
        let fail = self.fail.clone();
        self.copies.spawn(async move {
            let copied = match to {
                Ok(mut to) => copy(&mut from, &mut to).await,
                Err(error) => Err(error),
            };
            if let Err(source) = copied {
                // Nobody receives it once the run is over.
                let _ = fail.try_send(AttachError::Output { stream, source });
                let _ = copy(&mut from, &mut sink()).await;
            }
        });
    }

    /// Returns when an output cannot be written; waits for ever if each can.
    async fn broken(&mut self) -> AttachError {
        match self.failures.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of both.
    async fn end(&mut self) {
        while self.copies.join_next().await.is_some() {}
    }

    /// A failure that has not been returned yet.
    fn failure(&mut self) -> Option<AttachError> {
        self.failures.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::unix::pipe::pipe;

    #[tokio::test]
    async fn an_output_that_cannot_be_written_is_named_and_read_to_its_end() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut outputs = Outputs::new();
        let (mut task, from) = pipe().unwrap();
        outputs.copy(from, Ok(File::from_std(full)), "standard output");
        let (other, from) = pipe().unwrap();
        let written = tempfile::NamedTempFile::new().unwrap();
        outputs.copy(from, Ok(File::from_std(written.reopen().unwrap())), "standard error");
        drop(other);
        // More than a pipe holds: without a reader this would never return.
        task.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
        let error = outputs.broken().await;
        assert!(error.to_string().contains("standard output"), "{error}");
        drop(task);
        outputs.end().await;
        assert!(outputs.failure().is_none());
    }
}
