//! The only program of a machine whose power is cut while it converts layers (`testbed cache-resets`): it says what the last cut left
//! in the cache, then converts until the next one.
//!
//! Lines of its console begin with `cache: `; the testbed reads them (`integration/src/cache_resets/account.rs`).

use crate::{
    blobs::{Packing, Sample, packed},
    causes, convert,
    found::{self, Found},
};
use casemate_shim::layers::converter::Converter;
use layer_cache::{Cache, Keep, SLOTS};
use nix::{
    mount::{MsFlags, mount},
    unistd::{chdir, chroot},
};
use std::{fs, path::Path, sync::Arc, time::SystemTime};
use tokio::{sync::Semaphore, task::JoinSet};

/// Environment variables, which the kernel takes from its command line.
const SEED: &str = "CASEMATE_TEST_SEED";
/// Options of the mount.
const MOUNT: &str = "CASEMATE_TEST_MOUNT";
/// Hundredths of a second after which the kernel writes what nobody has flushed.
const WRITEBACK: &str = "CASEMATE_TEST_WRITEBACK";
const DISK: &str = "/disk";
const BLOBS: &str = "/blobs";
/// Bytes and compression of the layers: few, since every byte is hashed by an emulated processor.
const LAYERS: [(usize, Packing); 6] = [
    (100, Packing::Plain),
    (70_000, Packing::Gzip),
    (150_000, Packing::Zstd),
    (300_000, Packing::Plain),
    (600_000, Packing::Gzip),
    (1_200_000, Packing::Plain),
];

pub async fn convert_until_the_power_is_cut() {
    set_up();
    fs::create_dir_all(BLOBS).expect("a directory");
    let layers: Vec<Sample> = (0..)
        .zip(LAYERS)
        .map(|(seed, (length, packing))| packed(Path::new(BLOBS), seed, length, packing))
        .collect();
    say("mounted");
    let dir = Path::new(DISK);
    if dir.join("layers").exists() {
        say(&format!("unfinished {}", found::unfinished(dir)));
    }
    let cache = Cache::open(dir).expect("a cache");
    for (n, sample) in layers.iter().enumerate() {
        match found::judge(&cache, sample, || found::expected(sample)) {
            Found::Absent => {}
            Found::Right => say(&format!("right {n}")),
            Found::Wrong(why) => say(&format!("wrong {n}: {why}")),
        }
    }
    say(&format!("left {}", found::unfinished(dir)));
    say("checked");
    let layers = layers.into_iter().map(Arc::new).collect();
    let seed = variable(SEED).and_then(|text| text.parse().ok()).expect("a seed");
    convert_without_end(&Arc::new(cache), layers, fastrand::Rng::with_seed(seed)).await;
}

async fn convert_without_end(cache: &Arc<Cache>, layers: Vec<Arc<Sample>>, mut random: fastrand::Rng) {
    let turns = Arc::new(Semaphore::new(SLOTS.into()));
    loop {
        // What goes is not said: that it was there no longer counts.
        say("removes");
        let all: u64 = cache.entries().expect("a cache").iter().map(|entry| entry.bytes).sum();
        let keep = Keep {
            bytes: Some(random.u64(0..=all)),
            ..Keep::default()
        };
        cache.collect(keep, SystemTime::now(), false).expect("a cache");
        let mut order: Vec<usize> = (0..layers.len()).collect();
        random.shuffle(&mut order);
        let mut work = JoinSet::new();
        for n in order {
            let (cache, sample, turns) = (cache.clone(), layers[n].clone(), turns.clone());
            work.spawn(async move {
                let _turn = turns.acquire_owned().await.expect("never closed");
                match convert(&cache, &sample, &converter()).await {
                    Ok(_) => say(&format!("made {n}")),
                    Err(error) => say(&format!("failed {n}: {}", causes(&error))),
                }
            });
        }
        work.join_all().await;
    }
}

/// As PID 1: the file systems, a root that converters can leave, and how soon the kernel writes.
fn set_up() {
    let nothing = None::<&str>;
    for (kind, at) in [("proc", "/proc"), ("devtmpfs", "/dev"), ("sysfs", "/sys")] {
        fs::create_dir_all(at).expect("a directory");
        mount(Some(kind), at, Some(kind), MsFlags::empty(), nothing).expect(kind);
    }
    // pivot_root does not work from an initramfs. Moved over itself, the same directory is an ordinary mount.
    fs::create_dir_all("/root").expect("a directory");
    mount(Some("/"), "/root", nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing).expect("the root once more");
    chdir("/root").expect("the root");
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing).expect("the root moves");
    chroot(".").expect("the root");
    chdir("/").expect("the root");
    let options = variable(MOUNT).unwrap_or_default();
    fs::create_dir_all(DISK).expect("a directory");
    mount(Some("/dev/vda"), DISK, Some("ext4"), MsFlags::empty(), Some(options.as_str())).expect("the disk");
    if let Some(soon) = variable(WRITEBACK) {
        for name in ["dirty_expire_centisecs", "dirty_writeback_centisecs"] {
            fs::write(format!("/proc/sys/vm/{name}"), &soon).expect("a setting");
        }
    }
}

fn converter() -> Converter {
    Converter {
        program: Some("/init".into()),
        cgroups_path: String::new(),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// One write, so that no other line gets into it.
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(format!("cache: {text}\n").as_bytes());
}
