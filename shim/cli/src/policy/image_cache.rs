//! The user's cache of pulled images: blobs by digest, used as OCI layouts.

use crate::progress::Line;
use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;
use oci::{Digest, Platform};
use policy_tools::RootCache;
use registry_client::{BlobStream, RemoteImage, RemoteLayer, Repository};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::{NamedTempFile, TempDir};

/// Largest document that is read from the cache.
const DOCUMENT_MAX_BYTES: u64 = oci::limits::DOCUMENT_MAX_BYTES as u64;
/// How long a blob is kept after its last use.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// No pull takes longer.
const PULL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where pulled images and root hashes are kept; none without a home directory.
pub fn directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.map(|base| base.join("casemate/images"))
}

/// Blobs by digest. What is in it was checked when it was written, and is checked again where it is used.
pub struct Cache {
    blobs: PathBuf,
    /// What is being pulled, on the same file system.
    incoming: PathBuf,
    /// Where there is no place for a cache.
    temporary: Option<Arc<TempDir>>,
}

/// An OCI layout of one image, whose blobs are the cache's.
pub struct Layout {
    directory: TempDir,
    /// The layout leads there.
    _cache: Option<Arc<TempDir>>,
}

impl Layout {
    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Cache {
    /// The user's cache, without what nobody has used for a long time and what interrupted pulls have left.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn open() -> Result<Self> {
        let (base, temporary) = match directory() {
            Some(base) => (base, None),
            None => {
                let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
                (directory.path().to_owned(), Some(Arc::new(directory)))
            }
        };
        let made = |name: &str| {
            let path = base.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
            path.canonicalize().with_context(|| format!("cannot use {}", path.display()))
        };
        let (blobs, incoming) = (made("blobs/sha256")?, made("incoming")?);
        remove_older(&blobs, KEPT);
        remove_older(&incoming, PULL_MAX);
        Ok(Self {
            blobs,
            incoming,
            temporary,
        })
    }

    /// Pulls the layers that are neither here nor known by their root hashes.
    ///
    /// # Errors
    /// A layer cannot be pulled or kept, or there is no room for all of them.
    pub async fn layers(&self, repository: &Repository, image: &RemoteImage, roots: Option<&RootCache>) -> Result<()> {
        let known = |layer: &RemoteLayer| roots.is_some_and(|roots| roots.known(layer.digest, layer.diff_id).is_some());
        let missing = image.layers.iter().filter(|layer| !known(layer) && !self.has(layer));
        let missing: Vec<RemoteLayer> = missing.cloned().collect();
        self.has_room(&missing)?;
        let progress = Progress::new(missing.len());
        let progress = &progress;
        let pulls = repository.each_layer(&missing, |layer, stream| async move {
            self.layer(layer, stream).await?;
            progress.step();
            Ok::<_, anyhow::Error>(())
        });
        pulls.await.map(|_| ())
    }

    /// Fails if the file system cannot hold what is to be pulled.
    fn has_room(&self, missing: &[RemoteLayer]) -> Result<()> {
        let wanted = missing.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        let system = statvfs(&self.incoming).with_context(|| format!("cannot measure {}", self.incoming.display()))?;
        let free = system.blocks_available().saturating_mul(system.fragment_size());
        ensure!(
            wanted <= free,
            "its layers have {wanted} bytes, and {} has room for {free}",
            self.incoming.display()
        );
        Ok(())
    }

    /// Whether a blob is there and is what its name says; one that is damaged is pulled again.
    fn has(&self, layer: &RemoteLayer) -> bool {
        let Ok(file) = fs::File::open(self.blobs.join(layer.digest.hex())) else {
            return false;
        };
        // Its use, for the sweep. A file of another user cannot be touched, and is as good.
        let _ = file.set_modified(SystemTime::now());
        sha256(file).is_ok_and(|found| found == layer.digest)
    }

    /// A document that was kept; whoever uses it checks its digest.
    pub fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        let mut document = Vec::new();
        let file = fs::File::open(self.blobs.join(digest.hex())).ok()?;
        let _ = file.set_modified(SystemTime::now());
        file.take(DOCUMENT_MAX_BYTES + 1).read_to_end(&mut document).ok()?;
        Some(document)
    }

    async fn layer(&self, layer: &RemoteLayer, mut stream: BlobStream<'_>) -> Result<()> {
        let mut file = self.file()?;
        while let Some(chunk) = stream.chunk().await? {
            file.write_all(&chunk)
                .with_context(|| format!("cannot write to {}", self.incoming.display()))?;
        }
        self.keep(file, &layer.digest)
    }

    fn file(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.incoming).with_context(|| format!("cannot write to {}", self.incoming.display()))
    }

    /// A blob is there whole or not at all.
    fn keep(&self, file: NamedTempFile, digest: &Digest) -> Result<()> {
        let path = self.blobs.join(digest.hex());
        file.as_file()
            .sync_all()
            .and_then(|()| Ok(file.persist(&path)?))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// An OCI layout of one image. The index says for which platform it was chosen, since a config may not.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn layout(&self, image: &RemoteImage, platform: Option<&Platform>) -> Result<Layout> {
        for (digest, document) in &image.documents {
            if self.document(*digest).as_ref() == Some(document) {
                continue;
            }
            let mut file = self.file()?;
            file.write_all(document).context("cannot write a document")?;
            self.keep(file, digest)?;
        }
        let size = image.documents.get(&image.digest).map_or(0, Vec::len);
        let mut manifest = json!({ "digest": image.digest.to_string(), "size": size });
        if let Some(platform) = platform {
            manifest["platform"] = json!({
                "os": platform.os, "architecture": platform.architecture, "variant": platform.variant, "os.version": platform.os_version,
            });
        }
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        let layout = tempfile::tempdir().context("cannot make a temporary directory")?;
        let blobs = layout.path().join("blobs");
        fs::create_dir(&blobs)
            .and_then(|()| symlink(&self.blobs, blobs.join("sha256")))
            .and_then(|()| fs::write(layout.path().join("index.json"), index.to_string()))
            .context("cannot write a layout")?;
        Ok(Layout {
            directory: layout,
            _cache: self.temporary.clone(),
        })
    }
}

/// Removes files that nobody has used for `age`. What cannot be removed stays.
fn remove_older(directory: &Path, age: Duration) {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| entry.ok());
    for entry in entries {
        let used = entry.metadata().and_then(|file| file.modified());
        // A file of the future is as new as can be.
        if used.is_ok_and(|used| used.elapsed().is_ok_and(|elapsed| elapsed > age)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn sha256(mut file: fs::File) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_sha256(hash.finalize().into())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Counts layers on a terminal.
struct Progress {
    total: usize,
    done: Cell<usize>,
    line: RefCell<Line>,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self {
            total,
            done: Cell::new(0),
            line: RefCell::new(Line::new()),
        }
    }

    fn step(&self) {
        self.done.set(self.done.get() + 1);
        let text = || format!("pulled {} of {} layers", self.done.get(), self.total);
        self.line.borrow_mut().update(text);
    }
}
