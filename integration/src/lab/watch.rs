//! Carries the serial consoles of all VMs in L1 out to the harness while they grow: a hung L1 can no longer be asked for them.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The virtio port that the harness reads; L1's init makes the link.
const PORT: &str = "/dev/casemate-vmm-console";
/// `<namespace>/<sandbox>/console.log` below this.
const STATE: &str = "/run/casemate";
const CONSOLE: &str = "console.log";
/// Short: the files of a sandbox that fails at once are gone soon. An open file can be read to its end even then.
const POLL: Duration = Duration::from_millis(30);

/// Starts carrying, for as long as the process lives.
pub fn consoles() -> std::io::Result<()> {
    let mut port = File::options().write(true).open(PORT)?;
    std::thread::spawn(move || {
        let mut open = BTreeMap::new();
        let mut last = PathBuf::new();
        loop {
            for path in found() {
                if let Entry::Vacant(new) = open.entry(path)
                    && let Ok(file) = File::open(new.key())
                {
                    new.insert(file);
                }
            }
            for (path, file) in &mut open {
                let mut bytes = Vec::new();
                if file.read_to_end(&mut bytes).is_ok() && !bytes.is_empty() {
                    if *path != last {
                        let _ = writeln!(port, "=== {}", path.display());
                        last.clone_from(path);
                    }
                    let _ = port.write_all(&bytes);
                }
            }
            std::thread::sleep(POLL);
        }
    });
    Ok(())
}

fn found() -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default()
    };
    let sandboxes = below(Path::new(STATE)).into_iter().flat_map(|namespace| below(&namespace));
    sandboxes
        .map(|sandbox| sandbox.join(CONSOLE))
        .filter(|file| file.exists())
        .collect()
}
