//! Reading a file of an image with every block's hash checked: in a container, compared with the same file on the same layer image
//! through a loop device and dm-verity on L1 itself.

use super::ctr::{ctr, run_words, timed};
use super::report::Row;
use super::{footprint, tools};
use crate::{
    lab::Runtime,
    testbed::{host, images, layer_tar::LayerTar, oci},
};
use anyhow::{Context, Result, bail};
use guest_image::cache;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const MIB: usize = 32;
const REFERENCE: &str = "docker.io/casemate/bench:1";
const FILE: &str = "bench-data";
/// Path of the OCI layout in the job; its layer tar is uncompressed.
pub const IMAGE_IN_JOB: &str = "job/bench-image.tar";
/// On the file system that also holds a sandbox's layers.
const WORK: &str = "/var/lib/casemate/bench-verity";
/// The node's cache.
const LAYERS: &str = "/var/lib/casemate/layers";
const MIB_BYTES: f64 = 1_048_576.0;
const MAPPED: &str = "bench-verity";
/// Increased when the recipe of the image changes.
const RECIPE: &str = "1";

/// On the host: an image with busybox and one large file, from the cache or built.
pub fn image() -> Result<PathBuf> {
    let dir = host::cache_dir("images")?;
    let path = dir.join(format!("bench-{}.tar", cache::key(&[RECIPE.as_bytes(), &MIB.to_le_bytes()])));
    if !path.exists() {
        let busybox = busybox()?;
        let mut layer = LayerTar::default();
        for directory in ["bin", "dev", "etc", "proc", "sys"] {
            layer.directory(directory, 0o755)?;
        }
        layer.file("bin/busybox", 0o755, &busybox)?;
        layer.file(FILE, 0o644, &noise())?;
        let layer = oci::Layer::from_tar(&layer.finish()?)?;
        let image = oci::Image {
            reference: REFERENCE,
            layers: &[layer],
            command: &["/bin/busybox", "true"],
            environment: &[images::PATH],
        };
        cache::write_whole(&path, &image.to_layout_tar()?)?;
    }
    Ok(path)
}

/// The busybox binary from the stories' image.
fn busybox() -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("cannot create a directory")?;
    let images = images::obtain()?.files;
    let image = images
        .iter()
        .find(|file| file.ends_with(images::file_name(images::BUSYBOX)))
        .context("there is no image of busybox")?;
    host::run(Command::new("tar").arg("xf").arg(image).arg("-C").arg(dir.path()))?;
    let blobs = std::fs::read_dir(dir.path().join("blobs/sha256")).context("the image has no blobs")?;
    let blobs = blobs.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    let layer = blobs
        .max_by_key(|path| path.metadata().map_or(0, |m| m.len()))
        .context("the image has no layer")?;
    host::run(
        Command::new("tar")
            .arg("xzf")
            .arg(layer)
            .arg("-C")
            .arg(dir.path())
            .arg("bin/busybox"),
    )?;
    std::fs::read(dir.path().join("bin/busybox")).context("cannot read busybox")
}

/// Bytes in which no block repeats (xorshift64; Marsaglia 2003).
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take((MIB << 20) / 8).flatten().collect()
}

/// In L1: measures; returns the row.
pub fn measure() -> Result<Vec<Row>> {
    timed(Command::new("ctr").args(["image", "import", &format!("/{IMAGE_IN_JOB}")]))?;
    let file = format!("/{FILE}");
    let words = |id: &str| {
        // busybox's dd in Debian prints no throughput line, hence the two readings of /proc/uptime.
        let script = format!("/bin/busybox cat /proc/uptime; /bin/busybox dd if={file} of=/dev/null bs=1M; /bin/busybox cat /proc/uptime");
        let command = ["/bin/busybox", "sh", "-c", &script];
        run_words(Runtime::Casemate, &["--rm"], REFERENCE, id, &command)
    };
    // The first run converts the layer. Every run reads the file for the first time in its guest.
    timed(&mut ctr(&words("warm")))?;
    let ours = rate(&timed(&mut ctr(&words("cold")))?.1)?;
    println!("in a container: {ours:.1} MiB/s");
    let theirs = on_l1()?;
    println!("on L1: {theirs:.1} MiB/s");
    let (read, layers) = second_start()?;
    Ok(vec![
        Row::of("cold read in a container", ours, "MiB/s").compared_with("loop + dm-verity on L1", theirs),
        Row::of("read by shim and VMM at a start", read, "MiB").compared_with("the image's layer", layers),
    ])
}

/// What shim and VMM have read when a container of a cached image runs that needs nothing of its large file, without the guest's own
/// image; and the size of the cached layer. Both in MiB.
fn second_start() -> Result<(f64, f64)> {
    let id = "second";
    let words = run_words(
        Runtime::Casemate,
        &["--detach", "--null-io"],
        REFERENCE,
        id,
        &["/bin/busybox", "sleep", "1000"],
    );
    timed(&mut ctr(&words))?;
    let mut bytes = 0;
    for name in ["containerd-shim-casemate-v2", "casemate-vmm"] {
        let process = footprint::process(name).with_context(|| format!("no process {name} runs"))?;
        let io = std::fs::read_to_string(process.join("io")).context("cannot read what a process has read")?;
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        bytes += read
            .and_then(|number| number.parse::<u64>().ok())
            .context("no number of bytes read")?;
    }
    for words in [["task", "delete", "--force", id].as_slice(), &["container", "delete", id]] {
        timed(Command::new("ctr").args(words))?;
    }
    let size = |path: &Path| {
        path.metadata()
            .map(|file| file.len())
            .with_context(|| format!("cannot measure {}", path.display()))
    };
    let guest = size(Path::new(super::KERNEL))? + size(Path::new(super::INITRAMFS))?;
    let cached = std::fs::read_dir(LAYERS).context("the cache has no layers")?;
    let cached = cached
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "ext4"));
    let mut largest = 0;
    for path in cached {
        largest = largest.max(size(&path)?);
    }
    let mib = |bytes: u64| bytes as f64 / MIB_BYTES;
    Ok((mib(bytes.saturating_sub(guest)), mib(largest)))
}

/// MiB/s between two readings of /proc/uptime (proc(5): seconds since boot, then idle seconds), whose resolution is 10 ms.
fn rate(said: &[u8]) -> Result<f64> {
    let text = String::from_utf8_lossy(said);
    let moments: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .collect();
    match moments[..] {
        [before, after] if after > before => Ok(MIB as f64 / (after - before)),
        _ => bail!("the container printed no two readings of /proc/uptime: {text}"),
    }
}

fn on_l1() -> Result<f64> {
    let work = Path::new(WORK);
    std::fs::create_dir_all(work.join("layout")).context("cannot create a directory")?;
    let run = |program: &str, arguments: &[&str]| timed(Command::new(program).args(arguments).current_dir(work)).map(|(_, said)| said);
    run("tar", &["xf", &format!("/{IMAGE_IN_JOB}"), "-C", "layout"])?;
    // The layer is the largest blob of the layout.
    let blobs = std::fs::read_dir(work.join("layout/blobs/sha256")).context("the image has no blobs")?;
    let blobs = blobs.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    let layer = blobs
        .max_by_key(|path| path.metadata().map_or(0, |m| m.len()))
        .context("the image has no layer")?;
    run("casemate", &["layer", "convert", &layer.to_string_lossy(), "layer.ext4"])?;
    run("modprobe", &["dm_verity"])?;
    let mut format = tools::command("veritysetup");
    let said = timed(format.args(["format", "layer.ext4", "hashes"]).current_dir(work))?.1;
    let text = String::from_utf8_lossy(&said);
    let root = text
        .lines()
        .find_map(|line| line.strip_prefix("Root hash:"))
        .with_context(|| format!("veritysetup printed no root hash: {text}"))?
        .trim();
    let mut open = tools::command("veritysetup");
    timed(open.args(["open", "layer.ext4", MAPPED, "hashes", root]).current_dir(work))?;
    std::fs::create_dir_all(work.join("mnt")).context("cannot create a directory")?;
    run("mount", &["-t", "ext4", "-o", "ro,noload", &format!("/dev/mapper/{MAPPED}"), "mnt"])?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")?;
    let started = Instant::now();
    run("busybox", &["dd", &format!("if=mnt/{FILE}"), "of=/dev/null", "bs=1M"])?;
    Ok(MIB as f64 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readings_give_a_rate() {
        assert_eq!(rate(b"1.50 1.20\n2.00 1.30\n").unwrap(), 64.0);
        assert!(rate(b"1.50 1.20\n").is_err());
        assert!(rate(b"1.50 1.20\n1.50 1.20\n").is_err());
    }
}
