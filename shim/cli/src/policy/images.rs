//! Images of a configuration that are named by reference: pulled once, and kept by digest for the next time.

use super::image_cache::{self, Cache, Layout};
use crate::input;
use anyhow::{Context, Result, bail};
use container_run::Source;
use oci::{Digest, Platform, Reference};
use policy_tools::{Config, Container, Pin, RootCache};
use registry_client::{Config as Registries, Credentials, Environment, RegistryName, Repository, Secret, logins};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Signals with which container runtimes end a container.
const END: [i32; 2] = [9, 15];

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
    layouts: Vec<Layout>,
    /// What to tell the owner of the policy.
    pub warnings: Vec<String>,
    /// What was pulled: the complete reference, and the digest of the manifest that it led to.
    pub pins: Vec<Pin>,
}

/// The user's cache of root hashes; none where no image needs it, or there is no place for one.
pub fn roots(config: &Config) -> Result<Option<RootCache>> {
    let has_image = |container: &Container| container.image.is_some() || is_to_be_pulled(container);
    let base = image_cache::directory().filter(|_| config.container.iter().any(has_image));
    Ok(base.map(|base| RootCache::open(&base.join("roots"))).transpose()?)
}

/// Whether a container's image has a name and nothing else.
fn is_to_be_pulled(container: &Container) -> bool {
    let sourceless = container.image.is_none() && container.layer_files.is_empty() && container.layers.is_empty();
    sourceless && container.image_name.is_some()
}

/// Adds the images of the command line, each a reference or a path, as containers that anybody can run and end.
pub fn add(config: &mut Config, images: &[String]) -> Result<()> {
    for image in images {
        let mut container = Container {
            allow_stdio_access: true,
            allow_stop_signal: true,
            allow_default_path: true,
            signals: END.to_vec(),
            ..Container::default()
        };
        match input::image(image)? {
            Source::Files(path) => container.image = Some(path.canonicalize().with_context(|| format!("cannot read {image}"))?),
            Source::Name(_) => container.image_name = Some(image.clone()),
        }
        config.container.push(container);
    }
    Ok(())
}

/// Pulls one image into an OCI layout, with all of its layers. The caller says which image an error is about.
pub async fn layout(name: &str, registries: Option<&Path>) -> Result<Layout> {
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
    layout
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
) -> Result<Layout> {
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
