//! Pulls from Debian's registry on this host: the client library beside `skopeo copy`, a whole program, and a policy of an image that is cached. Files are in memory.

use super::convert::{MIB, timed};
use super::report::{Row, median};
use crate::lab::registry::Registry;
use crate::testbed::{
    host,
    job::Build,
    layer_tar::LayerTar,
    oci::{Image, Layer},
};
use anyhow::{Context, Result};
use registry_client::{BlobStream, Config, Environment, RegistryName, RemoteLayer, Repository};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Memory-backed on every Linux.
const MEMORY: &str = "/dev/shm";
const LAYERS: u64 = 10;
/// Bytes of each layer, which do not compress.
const LAYER_BYTES: usize = 16 << 20;
const REPOSITORY: &str = "bench/app";
const TAG: &str = "1";
/// Pulls of each program, one after the other; the median counts.
const ROUNDS: usize = 5;

/// Measures; returns all rows.
pub fn measure(build: &Build) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir_in(MEMORY).context("no memory for an image")?;
    let mut registry = Registry::new(free_port()?, dir.path())?;
    registry.open()?;
    let bytes = fill(&registry, dir.path())?;
    let image = format!("{}/{REPOSITORY}:{TAG}", registry.address);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(in_empty(dir.path(), |to| pull(&registry.address, to))?);
        theirs.push(in_empty(dir.path(), |to| {
            skopeo(
                &["--src-tls-verify=false"],
                &format!("docker://{image}"),
                &format!("dir:{}", to.display()),
            )
        })?);
    }
    let row = Row::of("10 layers pulled, library alone", median(&ours).unwrap_or_default(), "s")
        .compared_with("skopeo copy", median(&theirs).unwrap_or_default())
        .target("≤ 1.1")
        .detail("mib", bytes as f64 / MIB);

    let (cold, warm) = policies(build, &registry, dir.path(), &image)?;
    Ok(vec![
        row,
        Row::of("policy generate, cached image", warm, "s")
            .target("≤ 1")
            .detail("first_time_s", cold),
    ])
}

/// Seconds of a policy of an image that was never seen, and of the same one again.
fn policies(build: &Build, registry: &Registry, dir: &Path, image: &str) -> Result<(f64, f64)> {
    let configuration = dir.join("registries.toml");
    std::fs::write(&configuration, open(&registry.address)).context("cannot write a configuration")?;
    let generate = || {
        timed(
            Command::new(build.programs.join("casemate"))
                .args(["policy", "generate", image, "--registries"])
                .arg(&configuration)
                .env("XDG_CACHE_HOME", dir.join("cache")),
        )
    };
    Ok((generate()?, generate()?))
}

/// A port that nothing uses now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr().context("no port is free")?.port())
}

/// Copies an image of random files to the registry; returns the size of its layers.
fn fill(registry: &Registry, dir: &Path) -> Result<usize> {
    let mut layers = Vec::new();
    for number in 0..LAYERS {
        let mut data = vec![0; LAYER_BYTES];
        fastrand::Rng::with_seed(number).fill(&mut data);
        let mut layer = LayerTar::default();
        layer.file(&format!("file-{number}"), 0o644, &data)?;
        layers.push(Layer::from_tar(&layer.finish()?)?);
    }
    let name = format!("{}/{REPOSITORY}:{TAG}", registry.address);
    let layout = Image {
        reference: &name,
        layers: &layers,
        command: &["/file-0"],
        environment: &[],
    };
    let file = dir.join("image.tar");
    std::fs::write(&file, layout.to_layout_tar()?).context("cannot write an image")?;
    skopeo(
        &["--dest-tls-verify=false"],
        &format!("oci-archive:{}", file.display()),
        &format!("docker://{name}"),
    )?;
    Ok(LAYERS as usize * LAYER_BYTES)
}

fn skopeo(options: &[&str], from: &str, to: &str) -> Result<()> {
    let mut command = Command::new(host::find("skopeo").context("skopeo is not installed: `make setup` installs it")?);
    host::run(
        command
            .args(["--insecure-policy", "copy", "--quiet"])
            .args(options)
            .args([from, to]),
    )?;
    Ok(())
}

/// Seconds of what writes to an empty directory.
fn in_empty(dir: &Path, act: impl FnOnce(&Path) -> Result<()>) -> Result<f64> {
    let to = tempfile::tempdir_in(dir).context("cannot create a directory")?;
    let started = Instant::now();
    act(to.path())?;
    Ok(started.elapsed().as_secs_f64())
}

/// The registry's section: no TLS.
fn open(address: &str) -> String {
    format!("[registries.'{address}']\ninsecure-skip-verify = true\n")
}

/// Every document and layer, checked, in files.
fn pull(address: &str, to: &Path) -> Result<()> {
    let access = Config::parse(&open(address))?.access(&RegistryName::new(address), &Environment::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let repository = Repository::new(access, REPOSITORY)?;
        let (digest, document) = repository.resolve(TAG).await?;
        let image = repository.image(digest, Some(&document)).await?;
        for (digest, document) in &image.documents {
            std::fs::write(to.join(digest.hex()), document).context("cannot write a document")?;
        }
        let write = async |layer: &RemoteLayer, mut stream: BlobStream<'_>| {
            let mut file = std::fs::File::create(to.join(layer.digest.hex())).context("cannot create a file")?;
            while let Some(chunk) = stream.chunk().await? {
                file.write_all(&chunk).context("cannot write a layer")?;
            }
            Ok::<_, anyhow::Error>(())
        };
        repository.each_layer(&image.layers, write).await?;
        Ok(())
    })
}
