//! Kills of a shim, of its converters, or of all of them while they convert layers: the next shim finds each layer right or absent.
//!
//! Where a kill hits is drawn: after a part of the time that all conversions take, or when a file of a certain kind is there. No
//! outcome depends on that time; what the kills hit is counted.

use crate::{
    ROLE,
    blobs::{Packing, Sample, many_entries, packed, small},
    causes, convert, converter, files,
    found::{self, Found},
    processes::{self, until},
};
use casemate_shim::layers::{LayersError, converter::ConverterError};
use layer::Converted;
use layer_cache::{Cache, Keep, SLOTS};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs, hint,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Environment variable that repeats the choices of a run.
const SEED: &str = "CASEMATE_TEST_SEED";
const KILLS: u32 = 200;
/// Kinds of files whose appearance is a point to kill at, in the order in which a conversion makes them.
const STEPS: [&str; 5] = ["lock", "converting", "describing", "ext4", "json"];
/// Kills are not spread over more time than this, however busy the host is.
const LONGEST: Duration = Duration::from_secs(1);
/// The most iterations between a file's appearance and the kill: some hundred microseconds.
const LATER: u32 = 100_000;

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Shim,
    Converters,
    All,
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    /// Nothing had changed in the cache yet.
    before: u32,
    /// A conversion was under way.
    during: u32,
    /// Some layers were made, and no conversion was under way.
    between: u32,
    /// Every layer was made.
    after: u32,
    /// Of those during: an image had its name and its description not.
    halves: u32,
    /// Converters that were killed alone.
    converters: u32,
}

/// Layers of several sizes and compressions, with what each must become.
struct Layers(Vec<(Sample, Converted)>);

impl Layers {
    fn new(dir: &Path) -> Self {
        let mut samples = vec![
            small(dir, b"hello"),
            packed(dir, 1, 200_000, Packing::Plain),
            packed(dir, 2, 1_000_000, Packing::Gzip),
            packed(dir, 3, 1_500_000, Packing::Zstd),
            packed(dir, 4, 4_000_000, Packing::Plain),
        ];
        // Compressed to nothing, with an image of megabytes.
        samples.extend(many_entries(dir, 1, 10_000));
        let lines: Vec<String> = samples.iter().map(Sample::line).collect();
        fs::write(dir.join("blobs"), lines.join("\n")).expect("a list");
        let judged = samples.into_iter().map(|sample| {
            let expected = found::expected(&sample);
            (sample, expected)
        });
        Self(judged.collect())
    }

    /// Fails on a layer that is wrong; how many are right.
    fn right(&self, cache: &Cache, when: &str) -> usize {
        let found = self.0.iter().map(|(sample, expected)| {
            let found = found::judge(cache, sample, || *expected);
            assert!(!matches!(found, Found::Wrong(_)), "{when}: {}: {found:?}", sample.wanted.blob);
            found
        });
        found.filter(|found| *found == Found::Right).count()
    }
}

/// As a shim that wants every layer of the list, and wants it again where its converter was killed.
pub async fn convert_all(dir: &Path) {
    let cache = Arc::new(Cache::open(dir).expect("a cache"));
    let mut work = tokio::task::JoinSet::new();
    for line in fs::read_to_string(dir.join("blobs")).expect("a list").lines() {
        let sample = Sample::listed(line);
        let cache = cache.clone();
        work.spawn(async move {
            loop {
                match convert(&cache, &sample, &converter()).await {
                    Ok(layer) => return drop(layer),
                    Err(LayersError::Convert(_, ConverterError::NoReport { how, .. })) if how.contains("signal: 9") => {}
                    Err(error) => panic!("{}", causes(&error)),
                }
            }
        });
    }
    work.join_all().await;
}

fn shim(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program has a path"))
        .env(ROLE, format!("all {}", dir.display()))
        .spawn()
        .expect("a shim")
}

pub async fn whoever_is_killed_leaves_layers_that_are_right_or_absent() {
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{KILLS} kills: {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let layers = Layers::new(dir);
    let started = Instant::now();
    assert!(shim(dir).wait().expect("a shim").success());
    let whole = started.elapsed().min(LONGEST);
    let mut hits = Hits::default();
    for n in 0..KILLS {
        let when = format!("kill {n} of {SEED}={seed}");
        forget_some(dir, &mut random);
        one_kill(dir, whole, &mut random, &mut hits, &when).await;
        next_shim(dir, &layers, &when).await;
    }
    println!("hit: {hits:?}, after {:?}", started.elapsed());
    assert!(hits.during > 0 && hits.after > 0 && hits.converters > 0, "{hits:?}");
    assert!(shim(dir).wait().expect("a shim").success());
    let cache = Cache::open(dir).expect("a cache");
    assert_eq!(layers.right(&cache, "at the end"), layers.0.len());
    assert_eq!(found::suffixes(dir).len(), 2 * layers.0.len() + usize::from(SLOTS));
    println!("ok: whoever is killed leaves layers that are right or absent");
}

/// Removes the layers that were used least, up to a size that is drawn.
fn forget_some(dir: &Path, random: &mut fastrand::Rng) {
    let cache = Cache::open(dir).expect("a cache");
    let all: u64 = cache.entries().expect("a cache").iter().map(|entry| entry.bytes).sum();
    let keep = Keep {
        // Half of the times, every layer is converted.
        bytes: Some(if random.bool() { 0 } else { random.u64(0..=all) }),
        ..Keep::default()
    };
    cache.collect(keep, SystemTime::now(), false).expect("a cache");
}

async fn one_kill(dir: &Path, whole: Duration, random: &mut fastrand::Rng, hits: &mut Hits, when: &str) {
    let before = files(dir);
    let mut killed = shim(dir);
    // Its layers are wanted by another shim too, which nobody kills.
    let other = (random.u32(0..8) == 0).then(|| shim(dir));
    let victim = match random.u32(0..4) {
        0 | 1 => Victim::Shim,
        2 => Victim::Converters,
        _ => Victim::All,
    };
    if random.bool() {
        std::thread::sleep(whole.mul_f64(random.f64() * 1.2));
    } else {
        reach(STEPS[random.usize(0..STEPS.len())], dir, &mut killed, random);
    }
    let converters = match victim {
        Victim::Shim => Vec::new(),
        // Its number may be another process's once it has been waited for.
        Victim::Converters | Victim::All if killed.try_wait().expect("a shim").is_some() => Vec::new(),
        Victim::Converters | Victim::All => processes::of(killed.id()),
    };
    for pid in &converters {
        // One that has ended meanwhile is reaped by its shim.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    if !matches!(victim, Victim::Converters) {
        killed.kill().expect("a shim");
    }
    let (after, unfinished) = (files(dir), found::unfinished(dir));
    let status = killed.wait().expect("a shim");
    match victim {
        Victim::Converters => {
            hits.converters += converters.len() as u32;
            assert!(status.success(), "{when}: a shim survives its converters: {status}");
        }
        Victim::Shim | Victim::All => {
            let count = |suffix: &str| after.iter().filter(|name| name.ends_with(suffix)).count();
            assert!(
                status.success() || status.signal() == Some(Signal::SIGKILL as i32),
                "{when}: {status}"
            );
            let hit = if unfinished > 0 {
                &mut hits.during
            } else if status.success() {
                &mut hits.after
            } else if after == before {
                &mut hits.before
            } else {
                &mut hits.between
            };
            *hit += 1;
            hits.halves += u32::from(count(".ext4") != count(".json"));
        }
    }
    if let Some(mut other) = other {
        let status = other.wait().expect("a shim");
        assert!(status.success(), "{when}: the other shim: {status}");
    }
}

/// Waits until the cache has a file of this kind that is newer than the shim, or the shim has ended; then a moment more.
fn reach(step: &str, dir: &Path, shim: &mut Child, random: &mut fastrand::Rng) {
    let count = || found::suffixes(dir).iter().filter(|suffix| *suffix == step).count();
    let before = count();
    while count() <= before && shim.try_wait().expect("a shim").is_none() {
        hint::spin_loop();
    }
    (0..random.u32(0..LATER)).for_each(|_| hint::spin_loop());
}

/// What the next shim of the node finds: nothing of the dead but layers that are right, and both slots free.
async fn next_shim(dir: &Path, layers: &Layers, when: &str) {
    // Converters end with their shim, a moment later.
    let cache = until("the slots and locks of the dead are free", || {
        let cache = Cache::open(dir).expect("a cache");
        let slots: Vec<_> = (0..SLOTS).filter_map(|_| cache.try_slot().expect("a cache")).collect();
        (slots.len() == usize::from(SLOTS) && found::unfinished(dir) == 0).then_some(cache)
    });
    layers.right(&cache.await, when);
}
