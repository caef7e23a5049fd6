//! Layers on the node: prepared before a container needs them, and made of unpacked files where containerd has discarded their blobs.

use crate::{
    lab::{Ended, IMAGES, Lab, Policy, Program, Set},
    stories::story::{Machines, OURS, Story},
    testbed::{
        images::{BUSYBOX, PATH},
        layer_tar::LayerTar,
        oci::{Image, Layer},
    },
};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "layer-prepare",
        about: "`casemate layer prepare` converts each layer once however many want it, and a container uses what it made",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: prepare,
    },
    Story {
        name: "discarded-blobs",
        about: "a layer whose blob containerd has discarded is made of its files, unless the policy names root hashes",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: discarded_blobs,
    },
];

/// An image's name that goes at once.
const COLLECTED: &str = "localhost/story/collected:1";
const CACHE: &str = "/var/lib/casemate/layers";
/// What the container of the stories shows: a file in a directory that its layer only implies, one that is removed, and one that an opaque
/// directory hides.
const LOOK: [&str; 3] = [
    "sh",
    "-c",
    "cat /etc/story/word; [ ! -e /bin/yes ] && [ ! -e /usr/share/data ] && echo hidden",
];

/// An image of two layers, in files and in containerd.
struct Made {
    reference: String,
    /// Digest of the upper layer's blob, which no other image has.
    upper: String,
    /// The upper layer's tar, and the whole image.
    tar: PathBuf,
    layout: PathBuf,
    _dir: TempDir,
}

impl Made {
    /// An image that shows `word`.
    fn new(word: &str) -> Result<Self> {
        let mut upper = LayerTar::default();
        upper.file("etc/story/word", 0o644, format!("{word}\n").as_bytes())?;
        upper.whiteout("bin/yes")?;
        upper.opaque("usr/share")?;
        let upper = upper.finish()?;
        let layers = [Layer::from_tar(&busybox()?)?, Layer::from_tar(&upper)?];
        let reference = format!("localhost/story/{word}:1");
        let image = Image {
            reference: &reference,
            layers: &layers,
            command: &["sh"],
            environment: &[PATH],
        };
        let dir = tempfile::tempdir().context("cannot make a directory")?;
        let [tar, layout] = ["layer.tar", "image.tar"].map(|name| dir.path().join(name));
        fs::write(&tar, &upper).context("cannot write a layer")?;
        fs::write(&layout, image.to_layout_tar()?).context("cannot write an image")?;
        Ended::of(&["ctr", "image", "import", text(&layout)?])?.exits_with(0)?;
        Ok(Self {
            upper: layers[1].digest(),
            reference,
            tar,
            layout,
            _dir: dir,
        })
    }

    /// Leaves neither image nor layers.
    fn remove(self) -> Result<()> {
        Ended::of(&["ctr", "image", "remove", "--sync", &self.reference])?.exits_with(0)?;
        empty_the_cache()
    }
}

/// The tar of the busybox image's layer.
fn busybox() -> Result<Vec<u8>> {
    let layout = Path::new(IMAGES).join("busybox-1");
    let document = |path: PathBuf| -> Result<Value> {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).context("a document of the busybox image is not JSON")
    };
    let blob = |digest: &Value| {
        let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        Ok::<_, anyhow::Error>(layout.join("blobs/sha256").join(hex.context("a descriptor without a digest")?))
    };
    let index = document(layout.join("index.json"))?;
    let manifest = document(blob(&index["manifests"][0]["digest"])?)?;
    let file = fs::File::open(blob(&manifest["layers"][0]["digest"])?).context("cannot open busybox's layer")?;
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut tar)
        .context("cannot read busybox's layer")?;
    Ok(tar)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Where a policy has root hashes: the quotes around 64 characters.
fn quoted_hashes(policy: &str) -> Vec<(usize, usize)> {
    let quotes: Vec<usize> = policy.match_indices('"').map(|(at, _)| at).collect();
    let pairs = quotes.windows(2).map(|pair| (pair[0], pair[1]));
    let is_hash = |(at, end): &(usize, usize)| end - at == 65 && policy[at + 1..*end].bytes().all(|b| b.is_ascii_hexdigit());
    pairs.filter(is_hash).collect()
}

fn empty_the_cache() -> Result<()> {
    Ended::of(&["casemate", "gc", "--unused", "0s"])?.exits_with(0)?;
    Ok(())
}

/// What `casemate layer prepare` reports of each layer.
fn layers(ended: &Ended) -> Result<Vec<Value>> {
    let report: Value = serde_json::from_slice(&ended.stdout).context("the report is not JSON")?;
    let layers = report["layers"].as_array().cloned();
    layers.filter(|layers| layers.len() == 2).context("the report has not two layers")
}

fn count(layers: &[Value], state: &str) -> usize {
    layers.iter().filter(|layer| layer["state"] == state).count()
}

/// Images in the cache, with the times at which they were written.
fn cached() -> Result<Vec<(PathBuf, std::time::SystemTime)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(CACHE).context("there is no cache")? {
        let entry = entry.context("the cache cannot be read")?;
        if entry.path().extension().is_some_and(|extension| extension == "ext4") {
            found.push((entry.path(), entry.metadata()?.modified()?));
        }
    }
    found.sort();
    Ok(found)
}

fn prepare(lab: &Lab) -> Result<()> {
    empty_the_cache()?;
    let image = Made::new("prepared")?;
    let words = ["casemate", "layer", "prepare", "--json", &image.reference];
    let both = [Program::start(&words, &[])?, Program::start(&words, &[])?];
    let mut converted = 0;
    for program in both {
        let layers = layers(&program.end()?.exits_with(0)?)?;
        converted += count(&layers, "converted");
        let root_hash = Ended::of(&["casemate", "layer", "hash", text(&image.tar)?])?.exits_with(0)?.text();
        ensure!(
            layers[1]["root_hash"] == root_hash,
            "{} is not the layer's root hash {root_hash}",
            layers[1]
        );
        ensure!(layers[1]["blob"] == image.upper, "{} has another blob", layers[1]);
    }
    ensure!(converted == 2, "two layers were converted {converted} times");
    let before = cached()?;
    ensure!(before.len() == 2, "the cache has {before:?}");

    let again = Ended::of(&words)?.exits_with(0)?;
    ensure!(count(&layers(&again)?, "cached") == 2, "a layer was converted again");
    let plain = Ended::of(&["casemate", "layer", "prepare", &image.reference])?.exits_with(0)?;
    plain.mentions("2 layers are ready")?.mentions("0 converted, 2 cached")?;
    lab.container(&image.reference)
        .command(LOOK)
        .run()?
        .exits_with(0)?
        .prints("prepared\nhidden")?;
    ensure!(cached()? == before, "the container has converted a layer again");

    interrupted(&words)?;
    Ended::of(&["casemate", "layer", "prepare", "localhost/story/no-such-image:1"])?
        .exits_with(3)?
        .mentions("localhost/story/no-such-image:1")?;
    ensure!(
        Ended::of(&["ctr", "leases", "list", "-q"])?.exits_with(0)?.text().is_empty(),
        "a lease is left"
    );
    image.remove()?;
    lab.nothing_is_left()
}

/// A signal while a layer is converted, or a moment later: what is in the cache is whole in any case.
fn interrupted(words: &[&str]) -> Result<()> {
    empty_the_cache()?;
    let under_way = || {
        let names = fs::read_dir(CACHE).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| {
            [".converting", ".lock"]
                .iter()
                .any(|suffix| name.to_string_lossy().ends_with(suffix))
        })
    };
    let mut program = Program::start(words, &[])?;
    program.go_on_until(under_way)?;
    // It may have ended.
    Ended::of(&["kill", "-s", "INT", &program.pid().to_string()])?;
    let ended = program.end()?;
    ensure!([0, 3].contains(&ended.status), "it ended with {}", ended.status);
    ensure!(!under_way(), "a part of a layer is left");
    let again = Ended::of(words)?.exits_with(0)?;
    ensure!(layers(&again)?.len() == 2, "a layer is missing");
    Ok(())
}

fn discarded_blobs(lab: &Lab) -> Result<()> {
    empty_the_cache()?;
    let image = Made::new("discarded")?;
    let layout = Value::from(text(&image.layout)?);
    let command = serde_json::to_string(&LOOK).context("cannot write a command")?;
    let policy = Policy::of_config(&format!(
        "[[container]]\nimage = {layout}\ncommand = {command}\nallow_stdio_access = true\n"
    ))?;
    // As a pull with discard_unpacked_layers leaves it.
    Ended::of(&["ctr", "content", "rm", &image.upper])?.exits_with(0)?;
    // Its file goes with the next collection, for which a removal can wait.
    Ended::of(&["ctr", "image", "tag", BUSYBOX, COLLECTED])?.exits_with(0)?;
    Ended::of(&["ctr", "image", "remove", "--sync", COLLECTED])?.exits_with(0)?;

    Ended::of(&["casemate", "layer", "prepare", &image.reference])?
        .exits_with(3)?
        .mentions(&image.upper)?
        .mentions("discard_unpacked_layers = false")?;
    // The policy names the root hash of the blob, which the files cannot have: said before anything is converted.
    let pinned = lab.container(&image.reference).under(&policy).command(LOOK).run()?;
    ensure!(pinned.status != 0, "a layer without its blob was taken for the one of the policy");
    pinned
        .mentions(&image.upper)?
        .mentions("the policy names root hashes")?
        .mentions("discard_unpacked_layers = false")?;
    // Of a policy that computes them only the guest knows what it names; the shim says what the denial comes from.
    let hash = Ended::of(&["casemate", "layer", "hash", text(&image.tar)?])?.exits_with(0)?.text();
    let mut computed = policy.text().to_owned();
    for (at, end) in quoted_hashes(policy.text()).into_iter().rev() {
        let (first, second) = policy.text()[at + 1..end].split_at(32);
        computed.replace_range(at..=end, &format!("concat(\"\", [\"{first}\", \"{second}\"])"));
    }
    ensure!(
        policy.text().contains(&hash) && !computed.contains(&hash),
        "the policy is {computed}"
    );
    let annotation = format!("io.casemate.policy={}", STANDARD.encode(&computed));
    let denied = lab
        .container(&image.reference)
        .option("--annotation", &annotation)
        .command(LOOK)
        .run()?;
    ensure!(denied.status != 0, "a layer without its blob was taken for the one of the policy");
    denied.mentions("denied by policy:")?.mentions("not precomputable")?;
    lab.nothing_is_left()?;

    for _ in 0..2 {
        let open = lab.container(&image.reference).command(LOOK).run()?.exits_with(0)?;
        open.prints("discarded\nhidden")?;
        let files = cached()?;
        ensure!(files.len() == 2, "the cache has {files:?}");
        let blob = image.upper.trim_start_matches("sha256:");
        ensure!(
            files.iter().all(|(path, _)| !path.display().to_string().contains(blob)),
            "the files have the blob's name"
        );
    }
    image.remove()?;
    lab.nothing_is_left()
}
