//! Layers through the real converter: its memory and the shim's, conversions that are given up, slots of the node, converters that
//! lie, and what is in the cache after kills and power cuts.
//!
//! Without libtest, because the program executes itself: as the converter, and as other shims of the node. An argument names one of
//! `conversions`, `kills` and `large`.

#[path = "converter/blobs.rs"]
mod blobs;
#[path = "converter/found.rs"]
mod found;
#[path = "converter/kills.rs"]
mod kills;
#[path = "converter/large.rs"]
mod large;
#[path = "converter/power.rs"]
mod power;
#[path = "converter/processes.rs"]
mod processes;

use blobs::{Sample, endless, small};
use casemate_converter::{filter::RULES, limits::ADDRESSES_MAX_BYTES, program};
use casemate_shim::layers::{
    LayersError,
    converter::{Blob, Converter, ConverterError},
    of_files, one,
};
use layer_cache::{Cache, CacheError, SLOTS, Wanted};
use processes::{children, until};
use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

/// Environment variable: what this process is, and the directory that it works in.
const ROLE: &str = "CASEMATE_TEST_ROLE";
/// The blobs that each of two shims begins to convert.
const BEGUN: u8 = 3;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--job-fd") {
        return program::run(std::env::args_os().skip(1), RULES);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let role = std::env::var(ROLE).unwrap_or_default();
    match role.split_once(' ').unwrap_or((&role, "")) {
        ("many", dir) => runtime.block_on(large::convert_many(Path::new(dir))),
        ("endless", dir) => runtime.block_on(convert_endless(Path::new(dir))),
        ("all", dir) => runtime.block_on(kills::convert_all(Path::new(dir))),
        ("power", _) => runtime.block_on(power::convert_until_the_power_is_cut()),
        _ => tests(&runtime),
    }
    ExitCode::SUCCESS
}

fn tests(runtime: &tokio::runtime::Runtime) {
    let only = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("conversions") {
        runtime.block_on(conversions());
    }
    if wanted("kills") {
        runtime.block_on(kills::whoever_is_killed_leaves_layers_that_are_right_or_absent());
    }
    if wanted("large") {
        large::large_layers(runtime);
    }
}

async fn conversions() {
    a_layer_is_converted_in_another_process().await;
    what_a_user_sees_of_a_bad_layer_is_the_converters_text().await;
    a_blob_that_breaks_off_is_the_cause().await;
    files_become_a_layer_under_a_name_of_its_own().await;
    every_compression_gives_the_same_layer().await;
    a_conversion_that_is_given_up_leaves_nothing().await;
    waiting_is_given_up_too().await;
    two_convert_at_once_on_a_node_and_the_dead_make_room().await;
    a_converter_cannot_free_its_slot().await;
    converters_that_lie_are_errors().await;
}

/// This program as the converter.
fn converter() -> Converter {
    Converter {
        program: std::env::current_exe().ok(),
        cgroups_path: String::new(),
    }
}

/// A converter that is a shell script.
fn script(dir: &Path, text: &str) -> Converter {
    let path = dir.join("converter.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
    Converter {
        program: Some(path),
        cgroups_path: String::new(),
    }
}

async fn convert(cache: &Cache, sample: &Sample, converter: &Converter) -> Result<layer_cache::CachedLayer, LayersError> {
    one(cache, &sample.wanted, converter, || async { Ok(sample.blob()) }).await
}

/// What is in the cache besides the slots.
fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir.join("layers")).expect("a cache");
    let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("slot-")).collect();
    names.sort();
    names
}

async fn a_layer_is_converted_in_another_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let sample = small(dir.path(), b"hello");
    let expected = layer::hash(sample.bytes.as_slice(), &layer::Limits::default()).expect("a layer");
    let made = convert(&cache, &sample, &converter()).await.expect("a layer");
    assert_eq!((made.root_hash, made.data_blocks), (expected.root_hash.0, expected.data_blocks));
    assert!(
        layer::is_whole(
            &mut |buffer: &mut [u8], at| made.file.read_exact_at(buffer, at),
            made.data_blocks,
            &expected.root_hash
        )
        .expect("readable")
    );
    let mut names = ["ext4", "json"].map(|suffix| format!("{}.{suffix}", sample.wanted.blob.hex()));
    names.sort();
    assert_eq!(files(dir.path()), names);
    // The second is a hit: there is no converter for it.
    let again = convert(&cache, &sample, &script(dir.path(), "exit 1")).await.expect("a hit");
    assert_eq!(again.root_hash, made.root_hash);
    println!("ok: a layer is converted in another process");
}

async fn what_a_user_sees_of_a_bad_layer_is_the_converters_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let whole = small(dir.path(), b"hello");
    let cut = Sample::new(dir.path(), whole.bytes[..514].to_vec());
    let expected = layer::hash(cut.bytes.as_slice(), &layer::Limits::default()).expect_err("a cut tar");
    let refused = convert(&cache, &cut, &converter()).await.expect_err("a cut tar");
    assert_eq!(
        causes(&refused),
        format!("layer {} cannot be converted: {}", cut.wanted.diff_id, causes(&expected))
    );
    // The diff id of another layer.
    let mut other = small(dir.path(), b"other");
    other.wanted.diff_id = whole.wanted.diff_id;
    let refused = convert(&cache, &other, &converter()).await.expect_err("another layer");
    assert!(matches!(refused, LayersError::Cache(CacheError::DiffId { .. })), "{refused:?}");
    assert!(files(dir.path()).is_empty());
    println!("ok: a bad layer's error is the converter's text");
}

fn causes(error: &dyn std::error::Error) -> String {
    let more = error.source().map(|cause| format!(": {}", causes(cause)));
    format!("{error}{}", more.unwrap_or_default())
}

async fn a_blob_that_breaks_off_is_the_cause() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let sample = small(dir.path(), b"hello");
    let blob = || async {
        let (input, pipe) = io::pipe().expect("a pipe");
        let feed = async move {
            drop(pipe);
            Err(io::Error::other("containerd stops"))
        };
        Ok(Blob {
            input: input.into(),
            feed: Some(Box::pin(feed)),
        })
    };
    let broken = one(&cache, &sample.wanted, &converter(), blob).await.expect_err("no blob");
    assert!(
        causes(&broken).ends_with("the blob cannot be read: containerd stops"),
        "{}",
        causes(&broken)
    );
    assert!(files(dir.path()).is_empty());
    println!("ok: a blob that breaks off is the cause");
}

async fn files_become_a_layer_under_a_name_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let layer = dir.path().join("unpacked");
    fs::create_dir_all(layer.join("etc")).expect("a directory");
    // More than a pipe holds.
    fs::write(layer.join("etc/data"), vec![7; 3 << 20]).expect("a file");
    let wanted = Wanted {
        diff_id: oci::Digest::of(b"the layer's tar"),
        blob: oci::Digest::of(b"a name in the cache"),
    };
    let make = |converter: Converter| {
        let (cache, layer) = (cache.clone(), layer.clone());
        async move { of_files(&cache, &wanted, &converter, layer, false).await }
    };
    // A converter that does not read its input has nothing to name.
    let lie = r#"echo '{"converted":{"root_hash":"0000000000000000000000000000000000000000000000000000000000000000","diff_id":"sha256:0000000000000000000000000000000000000000000000000000000000000000","data_blocks":1,"total_blocks":3,"access_lists":0,"times":0}}' >&2"#;
    let lied = make(script(dir.path(), lie)).await.expect_err("nothing was read");
    assert!(matches!(lied, LayersError::Unread(_)), "{lied:?}");
    assert!(files(dir.path()).is_empty());
    let made = make(converter()).await.expect("a layer");
    assert_eq!((made.blob, made.diff_id), (wanted.blob, wanted.diff_id));
    let again = make(script(dir.path(), "exit 1")).await.expect("a hit");
    assert_eq!(again.root_hash, made.root_hash);
    // What breaks off is the cause, and no layer that ends where it broke off.
    fs::write(layer.join("etc/.wh.x"), "").expect("a file");
    fs::remove_file(dir.path().join("layers").join(format!("{}.json", wanted.blob.hex()))).expect("a layer");
    let refused = make(converter()).await.expect_err("a name that no layer has");
    assert!(
        causes(&refused).contains("etc/.wh.x\" begins like a whiteout"),
        "{}",
        causes(&refused)
    );
    println!("ok: files become a layer under a name of its own");
}

/// As builders and estargz make them: several members and frames, skippable frames first and last, a table of contents in the tar.
async fn every_compression_gives_the_same_layer() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let (tar, forms) = blobs::compressed();
    let plain = layer::hash(tar.as_slice(), &layer::Limits::default()).expect("a layer");
    for (name, bytes) in forms {
        let mut sample = Sample::new(dir.path(), bytes);
        sample.wanted.diff_id = plain.diff_id;
        let made = convert(&cache, &sample, &converter()).await;
        assert_eq!(made.expect(name).root_hash, plain.root_hash.0, "{name}");
    }
    println!("ok: every compression gives the same layer");
}

async fn a_conversion_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let sample = small(dir.path(), b"hello");
    let (blob, pipe) = endless();
    // Converters that were given up are reaped after their future has gone.
    until("none is left of the tests before", || children().is_empty().then_some(())).await;
    let given_up = tokio::spawn({
        let (cache, wanted) = (cache.clone(), sample.wanted);
        async move { one(&cache, &wanted, &converter(), || async { Ok(blob) }).await.map(drop) }
    });
    let pid = until("a converter runs", || children().first().copied()).await;
    until("it reads the blob", || processes::is_confined(pid).then_some(())).await;
    let names = ["converting", "lock"].map(|suffix| format!("{}.{suffix}", sample.wanted.blob.hex()));
    assert_eq!(files(dir.path()), names);
    has_only_what_it_needs(pid);
    given_up.abort();
    assert!(given_up.await.expect_err("it was aborted").is_cancelled());
    // File and lock go with the future: another container of the same image converts the layer.
    assert!(files(dir.path()).is_empty());
    convert(&cache, &sample, &converter()).await.expect("a layer");
    until("the converter is reaped", || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })
    .await;
    let free: Vec<_> = (0..SLOTS)
        .map(|_| cache.try_slot().expect("a cache").expect("a free slot"))
        .collect();
    assert_eq!(free.len(), usize::from(SLOTS));
    drop(pipe);
    println!("ok: a conversion that is given up leaves nothing");
}

/// A converter of root's that reads its blob: its ids, capabilities, limits, descriptors and files.
fn has_only_what_it_needs(pid: u32) {
    if !nix::unistd::geteuid().is_root() {
        return println!("SKIPPED: only root's converter can give up privileges");
    }
    let status = |name| processes::field(pid, name).unwrap_or_default();
    let first: u32 = status("Uid:")
        .split_whitespace()
        .next()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    assert!((0x7800_0000..0x7800_0000 + u32::from(SLOTS)).contains(&first), "{first:x}");
    for ids in ["Uid:", "Gid:"] {
        assert!(status(ids).split_whitespace().all(|id| id == first.to_string()), "{ids}");
    }
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!((status("Groups:").as_str(), status("NoNewPrivs:").as_str()), ("", "1"));
    let of = |what: &str| format!("/proc/{pid}/{what}");
    let text = |what| fs::read_to_string(of(what)).expect("a file of /proc");
    let limits = text("limits");
    let image = layer::Limits::default().max_image_bytes;
    for (limit, most) in [
        ("Max core file size", 0),
        ("Max open files", 16),
        ("Max processes", 64),
        ("Max file size", image + image / 100),
        ("Max address space", ADDRESSES_MAX_BYTES),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap_or_default();
        assert_eq!(line.split_whitespace().next(), Some(most.to_string().as_str()), "{limit}");
    }
    assert_eq!(text("oom_score_adj").trim(), "1000");
    assert_eq!(fs::read_dir(of("root/")).expect("a directory").count(), 0);
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let link = |process: String| fs::read_link(format!("{process}/ns/{namespace}")).expect("a namespace");
        assert_ne!(link(of("")), link("/proc/self".into()), "{namespace}");
    }
    let links = fs::read_dir(of("fd"))
        .expect("descriptors")
        .map(|fd| fs::read_link(fd.expect("a descriptor").path()));
    let open: Vec<String> = links.map(|link| link.expect("a link").display().to_string()).collect();
    let count = |what: &str| open.iter().filter(|file| file.contains(what)).count();
    // The standard streams but the last, report and blob, image, slot.
    let counts = [
        count("/dev/null"),
        count("pipe:"),
        count(".converting"),
        count("/slot-"),
        open.len(),
    ];
    assert_eq!(counts, [2, 2, 1, 1, 6], "{open:?}");
}

async fn waiting_is_given_up_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let slots: Vec<_> = (0..SLOTS).map(|_| cache.try_slot().expect("a cache").expect("a slot")).collect();
    let sample = small(dir.path(), b"hello");
    let wait = |sample: Wanted, blob: Blob| {
        let cache = cache.clone();
        tokio::spawn(async move { one(&cache, &sample, &converter(), || async { Ok(blob) }).await.map(drop) })
    };
    // The first waits for a slot and has the lock that the second waits for.
    let first = wait(sample.wanted, sample.blob());
    until("it has the lock", || (!files(dir.path()).is_empty()).then_some(())).await;
    let second = wait(sample.wanted, sample.blob());
    tokio::task::yield_now().await;
    second.abort();
    first.abort();
    assert!(first.await.is_err() && second.await.is_err());
    assert!(files(dir.path()).is_empty() && children().is_empty());
    drop(slots);
    convert(&cache, &sample, &converter()).await.expect("a layer");
    println!("ok: waiting is given up too");
}

/// As another shim of the node that converts blobs without end. It says when each has begun to wait for its slot.
async fn convert_endless(dir: &Path) {
    let cache = Arc::new(Cache::open(dir).expect("a cache"));
    let mut kept = Vec::new();
    for n in 0..BEGUN {
        let sample = small(dir, &[&std::process::id().to_le_bytes()[..], &[n]].concat());
        let (blob, pipe) = endless();
        kept.push(pipe);
        let cache = cache.clone();
        tokio::spawn(async move {
            let blob = || async {
                println!("begun");
                Ok(blob)
            };
            one(&cache, &sample.wanted, &converter(), blob).await.map(drop)
        });
    }
    // Until the test closes it.
    let _ = tokio::task::spawn_blocking(|| io::stdin().lines().count()).await;
}

async fn two_convert_at_once_on_a_node_and_the_dead_make_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut shims = [0, 1].map(|_| {
        let mut shim = Command::new(std::env::current_exe().expect("this program has a path"))
            .env(ROLE, format!("endless {}", dir.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shim");
        let said = BufReader::new(shim.stdout.take().expect("a pipe")).lines();
        (shim, said)
    });
    for (_, said) in &mut shims {
        assert_eq!(said.take(BEGUN.into()).filter(|line| line.is_ok()).count(), usize::from(BEGUN));
    }
    let pids = shims.each_ref().map(|(shim, _)| shim.id());
    let running = || {
        let [first, second] = pids.map(|shim| processes::of(shim).len());
        assert!(first + second <= usize::from(SLOTS), "{first} + {second}");
        (first, second)
    };
    let cache = Cache::open(dir.path()).expect("a cache");
    until("all slots are taken", || {
        let (first, second) = running();
        (first + second == usize::from(SLOTS)).then_some(())
    })
    .await;
    assert!(cache.try_slot().expect("a cache").is_none());
    // One of both shims is killed, and with it its converters: the other has both slots then.
    shims[0].0.kill().expect("a shim");
    shims[0].0.wait().expect("a shim");
    until("the slots of the dead are the other's", || {
        (running().1 == usize::from(SLOTS)).then_some(())
    })
    .await;
    let left = processes::of(pids[1]);
    drop(shims[1].0.stdin.take());
    shims[1].0.wait().expect("a shim");
    for pid in left {
        until("it ends with its shim", || (!processes::is_alive(pid)).then_some(())).await;
    }
    println!("ok: two convert at once on a node, and the dead make room");
}

/// One that was taken over closes whatever it has.
async fn a_converter_cannot_free_its_slot() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let sample = small(dir.path(), b"hello");
    let closed = dir.path().join("closed");
    let text = format!(
        "exec bash -c 'for fd in /proc/$$/fd/*; do n=${{fd##*/}}; ((n > 2)) && eval \"exec $n<&-\"; done; : > {}; exec sleep 1000'",
        closed.display()
    );
    let hostile = script(dir.path(), &text);
    let held = tokio::spawn({
        let cache = cache.clone();
        async move { convert(&cache, &sample, &hostile).await.map(drop) }
    });
    until("it has closed everything", || closed.exists().then_some(())).await;
    let first = cache.try_slot().expect("a cache");
    assert!(first.is_some() && cache.try_slot().expect("a cache").is_none());
    drop(first);
    held.abort();
    until("it is reaped", || children().is_empty().then_some(())).await;
    until("its slot is free", || {
        let both = [cache.try_slot().expect("a cache"), cache.try_slot().expect("a cache")];
        both.iter().all(Option::is_some).then_some(())
    })
    .await;
    println!("ok: a converter cannot free its slot");
}

async fn converters_that_lie_are_errors() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(dir.path()).expect("a cache");
    let sample = small(dir.path(), b"hello");
    let hash = "ab".repeat(32);
    let report = |diff_id: &str| {
        format!(
            r#"echo '{{"converted":{{"root_hash":"{hash}","diff_id":"sha256:{diff_id}","data_blocks":1,"total_blocks":2,"access_lists":0,"times":0}}}}' >&2"#
        )
    };
    let own = sample.wanted.diff_id.hex();
    for (text, error) in [
        (report(&hash), "holds another layer"),
        (report(&own), "described another image than it wrote"),
        (format!("{}; exit 3", report(&own)), "without a result (exit status: 3)"),
        (String::new(), "without a result (exit status: 0)"),
        (
            "printf 'not\\033[2J json\\n' >&2; exit 3".into(),
            "without a result (exit status: 3): not[2J json",
        ),
        (
            "echo '{\"refused\":\"\\u001b]0;title\\u0007no\"}' >&2; exit 1".into(),
            "cannot be converted: ]0;titleno",
        ),
        (
            "echo '{\"unable\":\"no\"}' >&2; exit 1".into(),
            "casemate-converter cannot begin: no",
        ),
        ("head -c 70000 /dev/zero >&2; exec sleep 1000".into(), "said more than 65536 bytes"),
        ("kill -SYS $$".into(), "its filter forbids"),
        ("kill -KILL $$".into(), "the pod's memory"),
    ] {
        let refused = convert(&cache, &sample, &script(dir.path(), &text)).await.expect_err("a lie");
        assert!(causes(&refused).contains(error), "{text}: {}", causes(&refused));
        assert!(files(dir.path()).is_empty(), "{text}");
    }
    let nowhere = Converter {
        program: Some("/nowhere".into()),
        cgroups_path: String::new(),
    };
    let refused = convert(&cache, &sample, &nowhere).await.expect_err("no program");
    assert!(matches!(refused, LayersError::Convert(_, ConverterError::Spawn(..))), "{refused:?}");
    until("all are reaped", || children().is_empty().then_some(())).await;
    println!("ok: converters that lie are errors");
}
