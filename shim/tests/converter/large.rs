//! Layers at the limits: what the shim and its converters take of the host's memory.

use crate::{
    ROLE,
    blobs::{Sample, many_entries},
    causes, convert, converter, files,
    processes::peak_kib,
    script,
};
use casemate_converter::limits::ADDRESSES_MAX_BYTES;
use casemate_shim::layers::LayersError;
use layer_cache::Cache;
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

/// Environment variable of `make test-all`, which has a minute for this.
const SET: &str = "CASEMATE_TEST_SET";
/// Layers, and empty entries in each; in the full set as many as the limits allow, with their directories.
const SHORT: (usize, usize) = (3, 1_000_000);
const FULL: (usize, usize) = (8, 1_997_900);
/// A shim's peak while it has them converted, in KiB. It reads none of them.
const SHIM_MAX_KIB: u64 = 48 << 10;
pub fn large_layers(runtime: &tokio::runtime::Runtime) {
    let dir = tempfile::tempdir().expect("a directory");
    let (layers, entries) = if std::env::var(SET).is_ok_and(|set| set == "full") {
        FULL
    } else {
        SHORT
    };
    let large = many_entries(dir.path(), layers, entries);
    many_large_layers_take_none_of_the_shims_memory(dir.path(), &large);
    runtime.block_on(a_layer_beyond_the_memory_limit_is_an_error_that_says_so(&large[0]));
}

/// As a shim that has eight large layers converted: says its own peak and the largest converter's, by the kernel's counters.
pub async fn convert_many(dir: &Path) {
    let cache = Arc::new(Cache::open(dir).expect("a cache"));
    let converter = Arc::new(converter());
    let mut work = tokio::task::JoinSet::new();
    for line in fs::read_to_string(dir.join("blobs")).expect("a list").lines() {
        let sample = Sample::listed(line);
        let (cache, converter) = (cache.clone(), converter.clone());
        // An image takes 600 MB of the disk.
        let image = dir.join(format!("layers/{}.ext4", sample.wanted.blob.hex()));
        work.spawn(async move {
            convert(&cache, &sample, &converter).await?;
            fs::remove_file(image).expect("an image");
            Ok::<_, LayersError>(())
        });
    }
    for made in work.join_all().await {
        made.expect("a layer");
    }
    let converters = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a counter").max_rss();
    println!("{} {converters}", peak_kib("self"));
}

fn many_large_layers_take_none_of_the_shims_memory(dir: &Path, layers: &[Sample]) {
    let started = std::time::Instant::now();
    let list: Vec<String> = layers.iter().map(Sample::line).collect();
    fs::write(dir.join("blobs"), list.join("\n")).expect("a list");
    let shim = Command::new(std::env::current_exe().expect("this program has a path"))
        .env(ROLE, format!("many {}", dir.display()))
        .stderr(Stdio::inherit())
        .output()
        .expect("a shim");
    assert!(shim.status.success(), "{}", shim.status);
    let said = String::from_utf8_lossy(&shim.stdout).into_owned();
    let peaks: Vec<u64> = said.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    println!(
        "peaks of shim and largest converter in KiB: {peaks:?}, after {:?}",
        started.elapsed()
    );
    io::stdout().flush().expect("standard output");
    assert!(peaks[0] < SHIM_MAX_KIB, "{peaks:?}");
    assert!(peaks[1] < ADDRESSES_MAX_BYTES / 1024, "{peaks:?}");
    println!("ok: many large layers take none of the shim's memory");
}

async fn a_layer_beyond_the_memory_limit_is_an_error_that_says_so(large: &Sample) {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let myself = std::env::current_exe().expect("this program has a path");
    let small = script(dir.path(), &format!("ulimit -v 250000; exec '{}' \"$@\"", myself.display()));
    let refused = convert(&cache, large, &small).await.expect_err("too little memory");
    let text = causes(&refused);
    assert!(
        text.contains("its memory may be at the limit") && text.contains("memory allocation of"),
        "{text}"
    );
    assert!(files(dir.path()).is_empty());
    println!("ok: a layer beyond the memory limit is an error that says so");
}
