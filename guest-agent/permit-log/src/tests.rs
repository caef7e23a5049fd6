//! Properties of the log: one encoding, one head, and no adversary between guest and verifier changes what is judged.

use proptest::prelude::*;

use crate::{
    Digest, Entry, Finding, Full, Head, Log, Nonce, Point, Receiver, Requirements, VerifyError, command_digest, report_data,
    wire::{DecodeError, Writer},
};

const ROUNDS: u64 = 10_000;

fn id(seed: u8) -> Digest {
    [seed; 32]
}

fn log_of(entries: impl IntoIterator<Item = Entry>) -> Log {
    let mut log = Log::default();
    for entry in entries {
        log.append(entry).unwrap();
    }
    log
}

/// Appends an act with its outcome; returns the act's position.
fn act(log: &mut Log, entry: Entry, done: bool) -> u64 {
    let of = log.append(entry).unwrap();
    log.append(Entry::Outcome { of, done }).unwrap();
    of
}

/// Layer, root file system, creation and start; returns the position of the creation.
fn run(log: &mut Log, container: u8, layer: u8, command: &[&str]) -> u64 {
    act(log, Entry::Layer { root: id(layer) }, true);
    let rootfs = Entry::Rootfs {
        container: id(container),
        layers: vec![id(layer)],
    };
    act(log, rootfs, true);
    let create = Entry::Create {
        container: id(container),
        command: command_digest(command),
        sandbox: false,
        privileged: false,
    };
    let created = act(log, create, true);
    act(log, Entry::Start { container: id(container) }, true);
    created
}

fn exec(container: u8) -> Entry {
    Entry::Exec {
        container: id(container),
        command: command_digest(&["/bin/sh"]),
    }
}

/// A log in which a proxy runs before an app.
fn pod() -> Log {
    let mut log = log_of([Entry::Policy { digest: id(9) }]);
    run(&mut log, 1, 0x11, &["/proxy"]);
    run(&mut log, 2, 0x22, &["/app"]);
    log
}

fn requirements(text: &str) -> Requirements {
    let hex = |seed: u8| hex::encode(id(seed));
    let containers = format!(
        "[containers.proxy]\nlayers = [\"{}\"]\ncommand = [\"/proxy\"]\n[containers.app]\nlayers = [\"{}\"]\n",
        hex(0x11),
        hex(0x22)
    );
    toml::from_str(&format!("{text}\n{containers}")).unwrap()
}

fn unmet(text: &str, log: &Log) -> Vec<String> {
    let findings = requirements(text).judge(log);
    assert!(!findings.is_empty(), "{text}");
    let unmet = |Finding { required, judged }| judged.err().map(|why| format!("{required}: {why}"));
    findings.into_iter().filter_map(unmet).collect()
}

fn digest() -> impl Strategy<Value = Digest> {
    // Few, so that entries are about the same containers.
    (0u8..4).prop_map(id)
}

prop_compose! {
    fn entry()(kind in 1..=17u8, a in digest(), b in digest(), c in digest(), n in any::<i64>(), flags in any::<(bool, bool)>(), layers in 0..5usize) -> Entry {
        match kind {
            1 => Entry::Policy { digest: a },
            2 => Entry::Fragment { issuer: a, feed: b, text: c, svn: flags.0.then_some(n) },
            3 => Entry::TrustList { issuer: a, subject: b, svn: n },
            4 => Entry::Layer { root: a },
            5 => Entry::Rootfs { container: a, layers: vec![b; layers] },
            6 => Entry::RootfsRemoved { container: a },
            7 => Entry::Create { container: a, command: b, sandbox: flags.0, privileged: flags.1 },
            8 => Entry::Start { container: a },
            9 => Entry::Exec { container: a, command: b },
            10 => Entry::External { command: a },
            11 => Entry::Signal { container: a, signal: n as i32, receiver: [Receiver::Init, Receiver::Exec, Receiver::All][layers % 3] },
            12 => Entry::End { container: a },
            13 => Entry::Remove { container: a },
            14 => Entry::Other { point: Point::named("pause_container").unwrap(), subject: flags.0.then_some(a) },
            15 => Entry::Outcome { of: 0, done: flags.0 },
            16 => Entry::Exit { of: 0, status: n as u32 },
            _ => Entry::PowerOff,
        }
    }
}

proptest! {
    #[test]
    fn a_log_has_one_encoding(entries in prop::collection::vec(entry(), 0..60)) {
        let log = log_of([Entry::Policy { digest: id(9) }].into_iter().chain(entries));
        let bytes = log.encode();
        let read = Log::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &log);
        prop_assert_eq!(read.encode(), bytes);
        prop_assert_eq!(read.head(), log.head());
    }

    #[test]
    fn hostile_bytes_are_refused_or_understood(bytes in prop::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
        let bytes = if whole { bytes } else { [&Log::default().encode()[..80], &bytes[..]].concat() };
        if let Ok(log) = Log::decode(&bytes) {
            prop_assert_eq!(log.encode(), bytes);
            let _ = requirements("whole = true\nonly_named = true\nnever = [\"exec\"]").judge(&log);
        }
    }

    #[test]
    fn every_byte_counts(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (log, nonce) = (pod(), Nonce::new(vec![7; 32]).unwrap());
        let bound = report_data(&nonce, &log.head());
        let mut bytes = log.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Log::verify(&bytes, &nonce, &bound).is_err());
    }
}

/// What lies between guest and verifier.
fn tamper(random: &mut fastrand::Rng, entries: &mut Vec<Entry>) {
    let at = random.usize(..entries.len());
    match random.u8(..6) {
        0 => drop(entries.remove(at)),
        1 => entries.truncate(at),
        2 => {
            let copy = entries[at].clone();
            entries.insert(random.usize(..=entries.len()), copy);
        }
        3 => {
            let moved = entries.remove(at);
            entries.insert(random.usize(..=entries.len()), moved);
        }
        4 => entries.swap(at, 0),
        _ => entries.insert(at, exec(random.u8(..3))),
    }
}

/// What the guest did.
fn session(random: &mut fastrand::Rng) -> Vec<Entry> {
    let mut entries = vec![Entry::Policy { digest: id(9) }];
    for _ in 0..random.usize(1..30) {
        let container = id(random.u8(..4));
        entries.push(match random.u8(..6) {
            0 => Entry::Layer { root: container },
            1 => Entry::Start { container },
            2 => exec(random.u8(..4)),
            3 => Entry::Signal {
                container,
                signal: random.i32(1..65),
                receiver: Receiver::Init,
            },
            4 => Entry::Outcome {
                of: 0,
                done: random.bool(),
            },
            _ => Entry::Remove { container },
        });
    }
    entries
}

#[test]
fn an_adversary_in_between_is_refused_each_time() {
    let mut random = fastrand::Rng::with_seed(15);
    let mut earlier = None;
    for _ in 0..ROUNDS {
        let entries = session(&mut random);
        let log = log_of(entries.clone());
        let nonce = Nonce::new((0..32).map(|_| random.u8(..)).collect()).unwrap();
        let bound = report_data(&nonce, &log.head());
        assert_eq!(Log::verify(&log.encode(), &nonce, &bound).as_ref(), Ok(&log));

        let mut other = entries.clone();
        while other == entries {
            for _ in 0..=random.usize(..3) {
                if !other.is_empty() {
                    tamper(&mut random, &mut other);
                }
            }
        }
        refused(&log_of(other).encode(), &nonce, &bound);

        // The report and log of an earlier session, and each with the part of the other.
        if let Some((old_bytes, old_nonce, old_bound)) = earlier.replace((log.encode(), nonce.clone(), bound)) {
            refused(&old_bytes, &nonce, &old_bound);
            refused(&old_bytes, &nonce, &bound);
            refused(&old_bytes, &old_nonce, &bound);
            refused(&log.encode(), &old_nonce, &bound);
            refused(&log.encode(), &nonce, &old_bound);
        }
        // The bytes cut anywhere.
        let cut = random.usize(..log.encode().len());
        refused(&log.encode()[..cut], &nonce, &bound);
    }
}

fn refused(bytes: &[u8], nonce: &Nonce, bound: &[u8; 64]) -> VerifyError {
    Log::verify(bytes, nonce, bound).unwrap_err()
}

#[test]
fn the_entries_that_folding_kept_are_bound_too() {
    let mut log = pod();
    while log.folded() == 0 {
        act(&mut log, exec(1), true);
    }
    let nonce = Nonce::new(vec![1; 16]).unwrap();
    let bound = report_data(&nonce, &log.head());
    let bytes = log.encode();
    assert_eq!(Log::verify(&bytes, &nonce, &bound), Ok(log.clone()));
    // Leaves out the last kept entry, and then all of them.
    let whole = Log::decode(&bytes).unwrap();
    for keeps in [log.entries().take_while(|(position, _)| *position < log.folded()).count() - 1, 0] {
        let mut out = Writer::default();
        out.bytes(&bytes[..20 + 8 + 48]);
        out.bytes(&(keeps as u32).to_le_bytes());
        for (position, entry) in log.entries().take(keeps) {
            out.bytes(&position.to_le_bytes());
            entry.write(&mut out);
        }
        let recent: Vec<_> = whole.entries().filter(|(position, _)| *position >= whole.folded()).collect();
        out.bytes(&(recent.len() as u32).to_le_bytes());
        recent.iter().for_each(|(_, entry)| entry.write(&mut out));
        assert_eq!(refused(&out.into_bytes(), &nonce, &bound), VerifyError::NotBound);
    }
}

#[test]
fn judgements_hold_after_folding() {
    let all = format!(
        "policy = \"{}\"\nlayers = [\"{}\", \"{}\"]\nfragments = []\nonly_named = true\nstarted_before = [[\"proxy\", \"app\"]]\nnever = [\"external\"]",
        hex::encode(id(9)),
        hex::encode(id(0x11)),
        hex::encode(id(0x22))
    );
    let mut log = pod();
    assert_eq!(unmet(&all, &log), [""; 0]);
    assert_eq!(unmet("no_exec_since = [\"app\"]\nwhole = true", &log), [""; 0]);
    // Probes that mostly fail, for weeks; the container's failed restarts leave its start alone.
    for round in 0..40_000u64 {
        let of = act(&mut log, exec(2), round % 3 == 0);
        log.append(Entry::Exit { of, status: 1 }).unwrap();
        if round % 1000 == 0 {
            act(&mut log, Entry::Start { container: id(2) }, false);
        }
    }
    assert!(log.folded() > 100_000);
    assert!(log.encode().len() < crate::MAX_DOCUMENT_BYTES);
    assert_eq!(unmet(&all, &log), [""; 0]);
    assert_eq!(unmet("no_exec_since = [\"app\"]\nwhole = true", &log).len(), 2);
    // One external process long ago is still there.
    act(&mut log, Entry::External { command: id(3) }, false);
    for _ in 0..20_000 {
        act(&mut log, exec(1), true);
    }
    assert_eq!(unmet(&all, &log).len(), 1);
}

#[test]
fn containers_that_come_and_go_do_not_fill_the_log() {
    let mut log = pod();
    for round in 0..5_000u32 {
        let mut container = id(3);
        container[..4].copy_from_slice(&round.to_le_bytes());
        act(
            &mut log,
            Entry::Rootfs {
                container,
                layers: vec![id(0x22)],
            },
            true,
        );
        let create = Entry::Create {
            container,
            command: command_digest(&["/app"]),
            sandbox: false,
            privileged: false,
        };
        act(&mut log, create, true);
        act(&mut log, Entry::Start { container }, true);
        act(&mut log, Entry::Remove { container }, true);
        act(&mut log, Entry::RootfsRemoved { container }, true);
    }
    assert_eq!(unmet("started_before = [[\"proxy\", \"app\"]]\nonly_named = true", &log), [""; 0]);
    assert!(log.entries().count() < 9_000, "{}", log.entries().count());
}

#[test]
fn a_log_that_must_keep_everything_is_full() {
    let mut log = Log::default();
    let mut full = None;
    for layer in 0..40_000u64 {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&layer.to_le_bytes());
        let before = log.head();
        if let Err(error) = log.append(Entry::Layer { root }) {
            full = Some((layer, error));
            assert_eq!(log.head(), before);
            break;
        }
    }
    let (count, Full) = full.unwrap();
    assert_eq!(log.len(), count);
    assert!(count > 8_192);
    assert_eq!(Log::decode(&log.encode()).unwrap(), log);
}

#[test]
fn each_requirement_can_fail() {
    let log = pod();
    let with = |entry: Entry| {
        let mut log = pod();
        act(&mut log, entry, false);
        log
    };
    let hex = |seed: u8| hex::encode(id(seed));
    let both = format!("layers = [\"{}\", \"{}\"]", hex(0x11), hex(0x22));
    assert_eq!(unmet(&both, &log), [""; 0]);
    assert!(unmet(&both, &with(Entry::Layer { root: id(0x33) }))[0].contains("3333"));
    let three = format!("layers = [\"{}\", \"{}\", \"{}\"]", hex(0x11), hex(0x22), hex(0x33));
    assert!(unmet(&three, &log)[0].contains("not mounted"));
    assert!(
        unmet(&three, &with(Entry::Layer { root: id(0x33) }))[0].contains("not mounted"),
        "its mount failed"
    );

    assert!(unmet(&format!("policy = \"{}\"", hex(8)), &log)[0].contains(&hex(9)));
    assert!(unmet(&format!("policy = \"{}\"", hex(9)), &Log::default())[0].contains("does not begin"));
    let fragment = Entry::Fragment {
        issuer: id(1),
        feed: id(2),
        text: id(3),
        svn: Some(1),
    };
    assert_eq!(unmet("fragments = []", &with(fragment.clone())).len(), 1);
    assert_eq!(unmet(&format!("fragments = [\"{}\"]", hex(3)), &with(fragment)), [""; 0]);
    // Permitted counts, whether it succeeded or not.
    assert_eq!(unmet("never = [\"exec\"]", &with(exec(1))).len(), 1);
    assert_eq!(unmet("no_exec_since = [\"app\"]", &with(exec(1))).len(), 1);
    assert_eq!(unmet("no_exec_since = [\"app\"]", &log), [""; 0]);
    let pause = Entry::Other {
        point: Point::named("pause_container").unwrap(),
        subject: Some(id(1)),
    };
    assert_eq!(unmet("never = [\"pause_container\"]", &with(pause)).len(), 1);

    let mut other = pod();
    run(&mut other, 3, 0x22, &["/app", "--debug"]);
    assert_eq!(unmet("only_named = true", &other), [""; 0], "no command is named for app");
    run(&mut other, 4, 0x11, &["/proxy", "--open"]);
    assert_eq!(unmet("only_named = true", &other).len(), 1);
}

#[test]
fn the_order_of_starts_is_judged() {
    let order = "started_before = [[\"proxy\", \"app\"]]";
    assert_eq!(unmet(order, &pod()), [""; 0]);
    let mut turned = log_of([Entry::Policy { digest: id(9) }]);
    run(&mut turned, 2, 0x22, &["/app"]);
    run(&mut turned, 1, 0x11, &["/proxy"]);
    assert!(unmet(order, &turned)[0].contains("no proxy was running"));
    assert!(unmet(order, &Log::default())[0].contains("no app was started"));
    // A proxy that had exited, or whose start failed, or that has other layers.
    let mut ended = log_of([Entry::Policy { digest: id(9) }]);
    let of = run(&mut ended, 1, 0x11, &["/proxy"]);
    ended.append(Entry::Exit { of, status: 0 }).unwrap();
    run(&mut ended, 2, 0x22, &["/app"]);
    assert_eq!(unmet(order, &ended).len(), 1);
    let mut failed = log_of([Entry::Policy { digest: id(9) }]);
    let entries: Vec<Entry> = {
        let mut proxy = Log::default();
        run(&mut proxy, 1, 0x11, &["/proxy"]);
        proxy.entries().map(|(_, entry)| entry.clone()).collect()
    };
    let (last, first) = entries.split_last().unwrap();
    assert!(matches!(last, Entry::Outcome { done: true, .. }));
    for entry in first {
        let entry = match entry {
            Entry::Outcome { of, done } => Entry::Outcome { of: of + 1, done: *done },
            other => other.clone(),
        };
        failed.append(entry).unwrap();
    }
    failed
        .append(Entry::Outcome {
            of: failed.len() - 1,
            done: false,
        })
        .unwrap();
    run(&mut failed, 2, 0x22, &["/app"]);
    assert_eq!(unmet(order, &failed).len(), 1);
    // A root file system that could not be mounted over an existing one changes nothing of that.
    let mut swapped = log_of([Entry::Policy { digest: id(9) }]);
    act(&mut swapped, Entry::Layer { root: id(0x33) }, true);
    let rootfs = |layer| Entry::Rootfs {
        container: id(1),
        layers: vec![id(layer)],
    };
    act(&mut swapped, rootfs(0x33), true);
    act(&mut swapped, rootfs(0x11), false);
    let create = Entry::Create {
        container: id(1),
        command: command_digest(&["/proxy"]),
        sandbox: false,
        privileged: false,
    };
    act(&mut swapped, create, true);
    act(&mut swapped, Entry::Start { container: id(1) }, true);
    run(&mut swapped, 2, 0x22, &["/app"]);
    assert_eq!(unmet(order, &swapped).len(), 1);
}

#[test]
fn files_that_would_require_nothing_are_refused() {
    for (text, why) in [
        ("policy = \"00\"", "SHA-256"),
        ("never = [\"execs\"]", "no act is called"),
        ("no_exec_since = [\"app\"]", "[containers.app]"),
        ("started_before = [[\"a\", \"b\"]]", "[containers.a]"),
        ("unknown = true", "unknown field"),
    ] {
        let error = toml::from_str::<Requirements>(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn limits_hold_in_the_reader() {
    assert_eq!(Log::decode(b"").unwrap_err(), DecodeError::Magic);
    assert_eq!(
        Log::decode(&vec![0; crate::MAX_DOCUMENT_BYTES + 1]).unwrap_err(),
        DecodeError::Size(crate::MAX_DOCUMENT_BYTES + 1)
    );
    let empty = Log::default().encode();
    for (at, bytes, error) in [
        (19, &[2][..], DecodeError::Magic),
        (20, &[0xff; 8][..], DecodeError::TooMany("folded entries")),
        (28, &[0][..], DecodeError::Value("chain over no entry")),
        (76, &[0xff; 4][..], DecodeError::TooMany("kept entries")),
        (80, &[0xff; 4][..], DecodeError::TooMany("entries")),
        (80, &[1][..], DecodeError::Short),
    ] {
        let mut other = empty.clone();
        other[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(Log::decode(&other).unwrap_err(), error);
    }
    assert_eq!(Log::decode(&[&empty[..], &[0]].concat()).unwrap_err(), DecodeError::Trailing);
    let mut self_reference = Log::default();
    self_reference.append(Entry::Outcome { of: 0, done: true }).unwrap();
    assert_eq!(Log::decode(&self_reference.encode()).unwrap_err(), DecodeError::Completes);
    for length in [0, 15, 65] {
        assert!(Nonce::new(vec![0; length]).is_err());
    }
}

/// What a verifier in another language must compute (these were, with Python's hashlib). Changing the bytes breaks every verifier.
#[test]
fn the_format_stays() {
    let log = pod();
    let nonce = Nonce::new((0..32).collect()).unwrap();
    assert_eq!(Log::default().head().to_string(), EMPTY);
    assert_eq!(log.head().to_string(), POD);
    assert_eq!(hex::encode(report_data(&nonce, &Head([5; 48]))), BOUND);
}

const EMPTY: &str = "7668464899933d305b1690cdf0b6e6db5dad0ea0230604870c49ff1075740593e496712db4a5dd40342645b705905ed6";
const POD: &str = "0f71f223ca5be495299567211ebac5554b4ff16a285fb19173ce2680bdc40a22370cea659693b95512fca130f10720e3";
const BOUND: &str =
    "fd6c8e124680d234ffd7514f623e49590cd95056f51aaec3b5e8e8320451a0962ec708b709df4dcaffaf2f43ea3ddd725c5f7d059d755d524aefd3d6559e9fca";
