//! Carries the serial consoles of all VMs in L1 out to the harness while they grow: a hung L1 can no longer be asked for them.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The virtio port that the harness reads; L1's init makes the link.
const PORT: &str = "/dev/casemate-vmm-console";
/// Short: the files of a sandbox that fails at once are gone soon. An open file can be read to its end even then.
const POLL: Duration = Duration::from_millis(30);

/// Carries as long as it lives; dropping it carries the last words.
pub struct Watch {
    end: Option<Sender<()>>,
    carrier: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts carrying.
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

/// The consoles found so far. A removed file stays open, so that it is read to its end.
#[derive(Default)]
struct Consoles {
    open: BTreeMap<PathBuf, File>,
    last: PathBuf,
}

impl Consoles {
    /// Writes to `port` what the consoles say since the last time. What the port does not take is lost.
    fn carry(&mut self, port: &mut impl Write) {
        for path in found() {
            if let Entry::Vacant(new) = self.open.entry(path)
                && let Ok(file) = File::open(new.key())
            {
                new.insert(file);
            }
        }
        for (path, file) in &mut self.open {
            let mut bytes = Vec::new();
            if file.read_to_end(&mut bytes).is_ok() && !bytes.is_empty() {
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
