//! Images that the guest pulls: one confined `casemate-puller` for each, so that nothing of a registry is parsed here.

use std::{io, net::IpAddr, os::fd::BorrowedFd, path::Path, process::Command, sync::Arc};

use agent_protocol::limits::{PULL_DEADLINE, REGISTRY_WAIT};
use guest_images::{PROGRAM, PulledLayer, PullerError, Request, Staging, outcome};
use nix::unistd::Pid;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    launcher::Program,
    paths,
    reaper::{Reaper, ended},
    storage::pulls::Begun,
};

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Another is being pulled.
    #[error("the guest pulls another image already")]
    Busy,
    /// The puller cannot be run, or its report cannot be read.
    #[error("the puller failed")]
    Io(#[from] io::Error),
    /// What the puller says.
    #[error(transparent)]
    Puller(#[from] PullerError),
    /// The registry is too slow.
    #[error("the image was not pulled within {PULL_DEADLINE:?}")]
    Late,
}

/// Runs a puller to its end; the files with its layers, and what it says of them. Without name servers only a registry by address is found. Dropping the future kills it.
pub async fn pull(reaper: Arc<Reaper>, begun: Begun, nameservers: Vec<IpAddr>) -> Result<(Staging, Vec<PulledLayer>), PullError> {
    let Begun {
        image,
        staging,
        configuration,
    } = begun;
    let request = Request {
        image,
        configuration,
        nameservers,
        wait: REGISTRY_WAIT,
    };
    let program = Program::unpacked(PROGRAM, Path::new(paths::PULLER))?;
    let spawn = |command: &mut Command, inherited: &[BorrowedFd<'_>]| reaper.spawn(command, inherited);
    let ((pid, exit), conversation) = staging.start(Path::new(&program.path()), request, spawn)?;
    drop(program);
    let _killed = Killed { reaper, pid };
    let said = spawn_blocking(|| conversation.hold());
    let work = async {
        let said = said.await.map_err(io::Error::other)??;
        Ok::<_, PullError>((said, ended(exit).await))
    };
    let (said, exit) = timeout(PULL_DEADLINE, work).await.map_err(|_| PullError::Late)??;
    let layers = outcome(&said, exit.status)?;
    Ok((staging, layers))
}

/// A puller that does not outlive its request.
struct Killed {
    reaper: Arc<Reaper>,
    pid: Pid,
}

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.reaper.signal(self.pid, libc::SIGKILL);
    }
}
