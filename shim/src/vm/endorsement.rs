//! Keys and certificates of the simulated TEE: made once on a host, by the shim of its first simulated guest.
//!
//! | file | what it is |
//! |---|---|
//! | `ark.pem` | the root, which a verifier must be told to trust (`casemate attest verify --roots`) |
//! | `ask.pem`, `vcek.der`, `ark.crl` | the rest of the chain (`--certs`) |
//! | `certificate-table` | the chain as guests get it |
//! | `key` | the endorsement key's secret, in hexadecimal: whoever has it can sign any report of this root |

use nix::fcntl::{Flock, FlockArg};
use simulated_tee::{Chain, ChainError};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const KEY: &str = "key";
const TABLE: &str = "certificate-table";
/// Beside the directory; held while it is made.
const LOCK: &str = ".simulated.lock";
/// This code is not older.
const YEAR_2026: Duration = Duration::from_secs(1_767_225_600);
/// Hexadecimal digits of the key.
const KEY_DIGITS: u64 = 96;

/// Why there is nothing to sign reports with.
#[derive(Debug, thiserror::Error)]
pub enum EndorsementError {
    /// The directory was changed, or its disk is damaged.
    #[error("cannot read the simulated TEE's {}; remove the directory, and new keys are made", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Nothing can be written.
    #[error("cannot write keys of the simulated TEE to {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// Certificates of another time would be made, and kept.
    #[error("the clock of this host says that it is before 2026: set it, so that the simulated TEE's certificates are valid")]
    Clock,
    /// No certificates.
    #[error("cannot make the certificates of the simulated TEE")]
    Chain(#[from] ChainError),
}

/// What a VMM signs reports with.
pub struct Endorsement {
    /// The key, in hexadecimal.
    pub key: String,
    /// The file of the table of certificates.
    pub certificates: File,
}

impl Endorsement {
    /// Opens the keys in `dir`, which it makes if there are none. Takes seconds then.
    ///
    /// # Errors
    /// See [`EndorsementError`].
    pub fn open(dir: &Path) -> Result<Self, EndorsementError> {
        make_once(dir)?;
        let path = dir.join(KEY);
        let mut key = String::new();
        File::open(&path)
            .and_then(|file| file.take(KEY_DIGITS + 1).read_to_string(&mut key))
            .map_err(|e| EndorsementError::Read(path, e))?;
        let path = dir.join(TABLE);
        let certificates = File::open(&path).map_err(|e| EndorsementError::Read(path, e))?;
        Ok(Self {
            key: key.trim_end().to_owned(),
            certificates,
        })
    }
}

/// Of shims that start at the same time, one makes the directory; the others wait for it.
fn make_once(dir: &Path) -> Result<(), EndorsementError> {
    let failed = |e| EndorsementError::Write(dir.to_owned(), e);
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed)?;
    // A file of its own: whoever may read a directory may lock it.
    let lock_file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(parent.join(LOCK))
        .map_err(failed)?;
    let _lock = Flock::lock(lock_file, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if dir.exists() {
        return Ok(());
    }
    log::info!("making keys and certificates of the simulated TEE in {}", dir.display());
    let chain = Chain::new(seed().map_err(failed)?, now()?)?;
    let unnamed = tempfile::Builder::new().prefix(".simulated-").tempdir_in(parent).map_err(failed)?;
    write(unnamed.path(), &chain).map_err(failed)?;
    fs::rename(unnamed.path(), dir).map_err(failed)?;
    // It has another name now.
    let _ = unnamed.keep();
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

fn write(dir: &Path, chain: &Chain) -> io::Result<()> {
    let key = hex::encode(chain.key.to_bytes());
    let files: [(&str, &[u8], u32); 6] = [
        ("ark.pem", chain.ark.as_bytes(), 0o644),
        ("ask.pem", chain.ask.as_bytes(), 0o644),
        ("vcek.der", &chain.vcek, 0o644),
        ("ark.crl", &chain.crl, 0o644),
        (TABLE, &chain.table, 0o644),
        (KEY, key.as_bytes(), 0o600),
    ];
    for (name, bytes, mode) in files {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(dir.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    File::open(dir)?.sync_all()
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn now() -> Result<Duration, EndorsementError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < YEAR_2026 {
        return Err(EndorsementError::Clock);
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn keys_are_made_once_and_only_the_owner_reads_the_secret() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("casemate/simulated");
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let dir = dir.clone();
                std::thread::spawn(move || Endorsement::open(&dir).unwrap().key)
            })
            .collect();
        let keys: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(keys.iter().all(|key| *key == keys[0] && key.len() as u64 == KEY_DIGITS));
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY), mode("ark.pem"), mode("")), (0o600, 0o644, 0o755));
        // Nothing else is left beside it and the lock.
        assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 2);
        fs::remove_file(dir.join(TABLE)).unwrap();
        assert!(
            matches!(Endorsement::open(&dir), Err(EndorsementError::Read(path, e)) if path.ends_with(TABLE) && e.kind() == ErrorKind::NotFound)
        );
    }
}
