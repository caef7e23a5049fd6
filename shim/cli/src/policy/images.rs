//! Images of a configuration that are named by reference: pulled once, and kept by digest for the next time.

use anyhow::{Context, Result, bail};
use oci::{Digest, Platform, Reference};
use policy_tools::{Config, Container, Pin, RootCache};
use registry_client::{
    BlobStream, Config as Registries, Credentials, Environment, RegistryName, RemoteImage, RemoteLayer, Repository, Secret, logins,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// Signals with which container runtimes end a container.
const END: [i32; 2] = [9, 15];

/// Largest document that is read from the cache.
const DOCUMENT_MAX_BYTES: u64 = oci::limits::DOCUMENT_MAX_BYTES as u64;

/// How images are reached, and which of them.
#[derive(Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The operator's configuration of registries.
    pub registries: Option<&'a Path>,
    /// The platform, if it is not what every guest runs.
    pub platform: Option<&'a Platform>,
    /// Root hashes that were computed before. Layers that are in it are not pulled.
    pub roots: Option<&'a RootCache>,
}

/// The layouts of pulled images, for as long as the policy is made.
pub struct Pulled {
    layouts: Vec<TempDir>,
    /// What to tell the owner of the policy.
    pub warnings: Vec<String>,
    /// What was pulled: the complete reference, and the digest of the manifest that it led to.
    pub pins: Vec<Pin>,
}

/// The user's cache of root hashes; none where no image needs it, or there is no place for one.
pub fn roots(config: &Config) -> Result<Option<RootCache>> {
    let has_image = |container: &Container| container.image.is_some() || is_to_be_pulled(container);
    let base = cache_dir().filter(|_| config.container.iter().any(has_image));
    Ok(base.map(|base| RootCache::open(&base.join("roots"))).transpose()?)
}

/// Whether a container's image has a name and nothing else.
fn is_to_be_pulled(container: &Container) -> bool {
    let sourceless = container.image.is_none() && container.layer_files.is_empty() && container.layers.is_empty();
    sourceless && container.image_name.is_some()
}

/// Where pulled images and root hashes are kept.
fn cache_dir() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.map(|base| base.join("casemate/images"))
}

/// Adds the images of the command line, each a reference or a path, as containers that anybody can run and end.
pub fn add(config: &mut Config, images: &[String]) -> Result<()> {
    for image in images {
        let path = Path::new(image);
        let mut container = Container {
            allow_stdio_access: true,
            allow_stop_signal: true,
            signals: END.to_vec(),
            ..Container::default()
        };
        match path.exists() {
            true => container.image = Some(path.canonicalize().with_context(|| format!("cannot read {image}"))?),
            false => container.image_name = Some(image.clone()),
        }
        config.container.push(container);
    }
    Ok(())
}

/// Pulls one image into an OCI layout, with all of its layers.
pub async fn layout(name: &str, registries: Option<&Path>) -> Result<TempDir> {
    let asked = Asked {
        registries,
        ..Asked::default()
    };
    let registries = configuration(registries)?;
    let mut pulled = Pulled {
        layouts: Vec::new(),
        warnings: registries.warnings().iter().map(ToString::to_string).collect(),
        pins: Vec::new(),
    };
    let layout = one(&registries, &asked, &Cache::open()?, &Container::default(), name, &mut pulled).await;
    for warning in &pulled.warnings {
        eprintln!("warning: {warning}");
    }
    layout.with_context(|| format!("cannot pull {name}"))
}

/// The operator's configuration of registries.
fn configuration(path: Option<&Path>) -> Result<Registries> {
    match path {
        Some(path) if !path.exists() => bail!("cannot read {}: there is no such file", path.display()),
        Some(path) => Registries::read(path).with_context(|| format!("{} cannot be used", path.display())),
        None => Ok(Registries::default()),
    }
}

/// Pulls the images of containers that have a name and no other source, and lets the containers name what was pulled.
pub fn pull(config: &mut Config, asked: &Asked<'_>) -> Result<Pulled> {
    let mut pulled = Pulled {
        layouts: Vec::new(),
        warnings: Vec::new(),
        pins: Vec::new(),
    };
    let mut wanted = config
        .container
        .iter_mut()
        .filter(|container| is_to_be_pulled(container))
        .peekable();
    if wanted.peek().is_none() {
        return Ok(pulled);
    }
    let registries = configuration(asked.registries)?;
    pulled.warnings.extend(registries.warnings().iter().map(ToString::to_string));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cache = Cache::open()?;
    for container in wanted {
        let name = container.image_name.clone().unwrap_or_default();
        let describe = || format!("cannot pull {name}");
        let layout = runtime
            .block_on(one(&registries, asked, &cache, container, &name, &mut pulled))
            .with_context(describe)?;
        container.image = Some(layout.path().to_owned());
        pulled.layouts.push(layout);
    }
    Ok(pulled)
}

async fn one(
    registries: &Registries,
    asked: &Asked<'_>,
    cache: &Cache,
    container: &Container,
    name: &str,
    pulled: &mut Pulled,
) -> Result<TempDir> {
    let reference: Reference = name
        .parse()
        .with_context(|| format!("{name:?} is neither a file nor an image reference"))?;
    let registry = RegistryName::new(reference.registry());
    let access = registries.access(&registry, &Environment::of_process())?;
    let access = match &container.auth {
        Some(auth) => {
            let password = Secret::new(auth.password.clone());
            let own = Credentials::new(Some(auth.username.clone()), Some(password), None, None, None)?;
            access.or_credentials(own, "auth of the container".to_owned())
        }
        None => {
            let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
            let stored = logins::look_up(variable, &registry, reference.repository()).await?;
            pulled.warnings.extend(stored.warnings);
            access.or_credentials(stored.credentials, stored.source)
        }
    };
    let repository = Repository::new(access, reference.repository())?;
    // Only a tag can mean another image tomorrow: what a digest names is asked for once.
    let (digest, known) = match reference.digest() {
        Some(digest) => (digest, BTreeMap::new()),
        None => {
            let (digest, document) = repository.resolve(reference.tag().unwrap_or_default()).await?;
            (digest, BTreeMap::from([(digest, document)]))
        }
    };
    let kept = |wanted: Digest| known.get(&wanted).cloned().or_else(|| cache.document(wanted));
    let image = repository.image_asking(digest, asked.platform.cloned(), &kept).await?;
    let pin = Pin {
        image: reference.to_string(),
        digest: image.digest,
    };
    if !pulled.pins.contains(&pin) {
        pulled.pins.push(pin);
    }
    cache.layers(&repository, &image, asked.roots).await?;
    cache.layout(&image, asked.platform)
}

/// Blobs by digest. What is in it was checked when it was written, and is checked again where it is used.
struct Cache {
    blobs: PathBuf,
    /// Where there is no place for a cache.
    _temporary: Option<TempDir>,
}

impl Cache {
    fn open() -> Result<Self> {
        let (base, temporary) = match cache_dir() {
            Some(base) => (base, None),
            None => {
                let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
                (directory.path().to_owned(), Some(directory))
            }
        };
        let blobs = base.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
        Ok(Self {
            blobs: blobs.canonicalize().with_context(|| format!("cannot use {}", blobs.display()))?,
            _temporary: temporary,
        })
    }

    /// Pulls the layers that are neither here nor known by their root hashes.
    async fn layers(&self, repository: &Repository, image: &RemoteImage, roots: Option<&RootCache>) -> Result<()> {
        let known = |layer: &RemoteLayer| roots.is_some_and(|roots| roots.known(layer.digest, layer.diff_id).is_some());
        let missing = image.layers.iter().filter(|layer| !known(layer) && !self.has(layer));
        let missing: Vec<RemoteLayer> = missing.cloned().collect();
        let progress = Progress::new(missing.len());
        let progress = &progress;
        let pulls = repository.each_layer(&missing, |layer, stream| async move {
            self.layer(layer, stream).await?;
            progress.step();
            Ok::<_, anyhow::Error>(())
        });
        pulls.await.map(|_| ())
    }

    /// Whether a blob is there and is what its name says; one that is damaged is pulled again.
    fn has(&self, layer: &RemoteLayer) -> bool {
        let file = fs::File::open(self.blobs.join(layer.digest.hex()));
        file.and_then(sha256).is_ok_and(|found| found == layer.digest)
    }

    /// A document that was kept; whoever uses it checks its digest.
    fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        let mut document = Vec::new();
        let file = fs::File::open(self.blobs.join(digest.hex())).ok()?;
        file.take(DOCUMENT_MAX_BYTES + 1).read_to_end(&mut document).ok()?;
        Some(document)
    }

    async fn layer(&self, layer: &RemoteLayer, mut stream: BlobStream<'_>) -> Result<()> {
        let mut file = self.file()?;
        while let Some(chunk) = stream.chunk().await? {
            file.write_all(&chunk).context("cannot write a layer")?;
        }
        self.keep(file, &layer.digest)
    }

    fn file(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.blobs).with_context(|| format!("cannot write to {}", self.blobs.display()))
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

    /// An OCI layout of one image, whose blobs are the cache's. The index says for which platform it was chosen, since a config may not.
    fn layout(&self, image: &RemoteImage, platform: Option<&Platform>) -> Result<TempDir> {
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
        Ok(layout)
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
    done: std::cell::Cell<usize>,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self {
            total,
            done: std::cell::Cell::new(0),
        }
    }

    fn step(&self) {
        self.done.set(self.done.get() + 1);
        let mut terminal = std::io::stderr();
        if terminal.is_terminal() {
            let end = if self.done.get() == self.total { "\n" } else { "" };
            // A terminal that is gone is no reason to stop.
            let _ = write!(terminal, "\rpulled {} of {} layers{end}", self.done.get(), self.total);
        }
    }
}
