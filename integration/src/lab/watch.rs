//! Copies the serial consoles of all VMs in L1 to the harness while they grow: a hung L1 could not be asked for them later.

use shim_state::console::Follower;
use std::collections::{BTreeMap, btree_map::Entry};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The virtio port that the harness reads; L1's init creates the symbolic link.
const PORT: &str = "/dev/casemate-vmm-console";
/// Short, because the files of a sandbox that fails at once are removed soon. An open file can still be read to its end.
const POLL: Duration = Duration::from_millis(30);

/// Copies as long as it exists; dropping it copies what is left.
pub struct Watch {
    end: Option<Sender<()>>,
    carrier: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts copying.
    pub fn over_consoles() -> std::io::Result<Self> {
        let mut port = File::options().write(true).open(PORT)?;
        let (end, ended) = channel();
        let carrier = std::thread::spawn(move || {
            let mut consoles = Consoles::default();
            while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                consoles.carry(&mut port);
            }
            consoles.carry(&mut port);
        });
        Ok(Self {
            end: Some(end),
            carrier: Some(carrier),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

/// The consoles found so far. A removed file stays open so that it is read to its end.
#[derive(Default)]
struct Consoles {
    open: BTreeMap<PathBuf, Follower>,
    last: PathBuf,
}

impl Consoles {
    /// Writes to `port` what the consoles have gained. What the port does not accept is lost.
    fn carry(&mut self, port: &mut impl Write) {
        for path in found() {
            if let Entry::Vacant(new) = self.open.entry(path)
                && let Ok(file) = Follower::open(new.key())
            {
                new.insert(file);
            }
        }
        for (path, file) in &mut self.open {
            if let Ok(bytes) = file.news()
                && !bytes.is_empty()
            {
                if *path != self.last {
                    let _ = writeln!(port, "=== {}", path.display());
                    self.last.clone_from(path);
                }
                let _ = port.write_all(&bytes);
            }
        }
    }
}

fn found() -> Vec<PathBuf> {
    let sandboxes = shim_state::all(Path::new(shim_state::DEFAULT_ROOT)).unwrap_or_default();
    let consoles = sandboxes.into_iter().map(|sandbox| sandbox.join(shim_state::CONSOLE));
    consoles.filter(|file| file.exists()).collect()
}
