//! `casemate layer prepare`: an image's layers go to the node's cache before a container needs them.

use crate::news::Shown;
use crate::output::print;
use crate::{config, input, pull};
use anyhow::{Context, Result};
use clap::Args;
use container_run::{Node, Preparation, Prepared, ReadyLayer};
use oci::Reference;
use serde::Serialize;
use std::path::PathBuf;

/// What to prepare.
#[derive(Args)]
pub struct Prepare {
    /// The image: a name in containerd or of a registry, or the path of an OCI layout (/…, ./…), a directory or a tar file
    image: String,
    /// containerd's namespace; kubelet's is k8s.io
    #[arg(long, env = "CONTAINERD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// containerd's socket
    #[arg(long, env = "CONTAINERD_ADDRESS", default_value = "/run/containerd/containerd.sock")]
    address: String,
    /// Configuration of registries, for an image that is pulled: credentials, certificates, proxies
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    /// Its name in containerd.
    image: &'a str,
    /// Digest of its manifest.
    digest: String,
    /// Bottom first.
    layers: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    /// Digest of the layer's blob.
    blob: String,
    diff_id: String,
    /// As policies name the layer.
    root_hash: String,
    /// Room that it takes in the cache.
    bytes: u64,
    /// `converted` now, or `cached` before.
    state: &'static str,
}

impl Line {
    fn of(ready: &ReadyLayer) -> Self {
        let ReadyLayer { layer, converted } = ready;
        Self {
            blob: layer.blob.to_string(),
            diff_id: layer.diff_id.to_string(),
            root_hash: hex::encode(layer.root_hash),
            bytes: layer.bytes(),
            state: if *converted { "converted" } else { "cached" },
        }
    }
}

/// Prepares an image; the last line is the summary.
pub fn prepare(prepare: Prepare) -> Result<()> {
    let Prepare {
        image, registries, json, ..
    } = &prepare;
    let source = input::image(image)?;
    let directories = config::directories()?;
    let request = Preparation {
        address: prepare.address.clone(),
        namespace: prepare.namespace.clone(),
        source,
        node: Node {
            cache_dir: directories.cache_dir,
            converter: directories.converter,
        },
    };
    let mut shown = Shown::new(false);
    let pull = async |reference: &Reference| pull::for_containerd(reference, registries.as_deref()).await;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let prepared = runtime.block_on(container_run::prepare(&request, pull, &mut |news| shown.show(news)));
    drop(shown);
    // Whatever is being written is written to its end or removed.
    drop(runtime);
    let prepared = prepared.with_context(|| format!("cannot prepare {image}"))?;
    report(&prepared, *json)
}

fn report(prepared: &Prepared, json: bool) -> Result<()> {
    let layers: Vec<Line> = prepared.layers.iter().map(Line::of).collect();
    if json {
        let report = Report {
            image: &prepared.name,
            digest: prepared.digest.to_string(),
            layers,
        };
        return print(&serde_json::to_string(&report)?);
    }
    for layer in &layers {
        print(&format!("{:<9} {} root hash {}", layer.state, layer.blob, layer.root_hash))?;
    }
    print(&summary(prepared))
}

fn summary(prepared: &Prepared) -> String {
    let layers = &prepared.layers;
    let converted = layers.iter().filter(|ready| ready.converted).count();
    let bytes: u64 = layers.iter().map(|ready| ready.layer.bytes()).sum();
    format!(
        "{}: {} layers are ready ({} MiB), {converted} converted, {} cached",
        prepared.name,
        layers.len(),
        bytes >> 20,
        layers.len() - converted
    )
}
