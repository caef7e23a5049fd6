//! A guest on the bench: a store, and this program as the puller.

use guest_images::{PullerError, Request, Staging, Store, outcome};
use layer::RootHash;
use nix::fcntl::{F_SETFD, FdFlag, fcntl};
use puller_protocol::PulledLayer;
use std::{
    fs::File,
    io::{self, Write},
    net::IpAddr,
    os::{fd::BorrowedFd, unix::process::ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::Mutex,
    time::Duration,
};
use tempfile::TempDir;

/// A child that is started inherits what another test lets its own inherit.
static SPAWNING: Mutex<()> = Mutex::new(());

/// A store on a directory.
pub struct Bench {
    pub store: Store,
    pub directory: PathBuf,
    pub nameservers: Vec<IpAddr>,
    pub wait: Duration,
    _temporary: Option<TempDir>,
}

/// A pull that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub said: Vec<u8>,
}

impl Ended {
    /// Its layers, or why there are none.
    pub fn outcome(&self) -> Result<Vec<PulledLayer>, PullerError> {
        let by_signal = self.status.signal().map(|signal| 128 + signal);
        outcome(&self.said, self.status.code().or(by_signal).unwrap_or(255) as u32)
    }
}

impl Bench {
    pub fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        Self {
            store: Store::default(),
            directory: temporary.path().to_owned(),
            nameservers: Vec::new(),
            wait: Duration::ZERO,
            _temporary: Some(temporary),
        }
    }

    /// On a directory that somebody else removes.
    pub fn at(directory: PathBuf) -> Self {
        Self {
            store: Store::default(),
            directory,
            nameservers: Vec::new(),
            wait: Duration::ZERO,
            _temporary: None,
        }
    }

    pub fn staging(&self) -> Staging {
        self.store.staging(&self.directory).unwrap()
    }

    /// Pulls and keeps the layers; their root hashes.
    pub fn pull(&mut self, image: &str, configuration: Option<&str>) -> Result<Vec<RootHash>, PullerError> {
        let staging = self.staging();
        let ended = self.run(&staging, image, configuration.map(disk), &[]);
        let layers = ended.outcome()?;
        Ok(self.store.keep(staging, &layers).unwrap())
    }

    /// The error of a pull that must fail, after which the store is what it was.
    pub fn refused(&mut self, image: &str, configuration: Option<&str>) -> String {
        let error = self.pull(image, configuration).unwrap_err();
        let text = error.to_string();
        println!("    {text}");
        assert!(matches!(error, PullerError::Refused(_)), "{text}");
        assert_eq!(std::fs::read_dir(&self.directory).unwrap().count(), 0, "nothing has a name");
        text
    }

    /// Runs this program as the puller to its end.
    pub fn run(&self, staging: &Staging, image: &str, configuration: Option<File>, environment: &[(&str, &str)]) -> Ended {
        let request = Request {
            image: image.to_owned(),
            configuration,
            nameservers: self.nameservers.clone(),
            wait: self.wait,
        };
        let spawn = |command: &mut Command, inherited: &[BorrowedFd<'_>]| -> io::Result<Child> {
            command.env(super::filter::PULLER, "").envs(environment.iter().copied());
            let _spawning = SPAWNING.lock().unwrap();
            let set = |flags| inherited.iter().try_for_each(|fd| fcntl(fd, F_SETFD(flags)).map(drop));
            set(FdFlag::empty())?;
            let child = command.spawn();
            set(FdFlag::FD_CLOEXEC)?;
            child
        };
        let program = std::env::current_exe().unwrap();
        let (mut child, conversation) = staging.start(&program, request, spawn).unwrap();
        let said = conversation.hold().unwrap();
        Ended {
            status: child.wait().unwrap(),
            said,
        }
    }
}

/// The disk with a configuration.
pub fn disk(text: &str) -> File {
    file(&registry_device::encode(text.as_bytes()).unwrap())
}

/// A file without a name, open for reading from its start.
pub fn file(content: &[u8]) -> File {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(content).unwrap();
    named.reopen().unwrap()
}
