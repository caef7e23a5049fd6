//! Properties of the log: one encoding, one head, and no adversary between guest and verifier changes what is judged.

use proptest::prelude::*;

use crate::{
    Digest, Entry, Full, Head, Log, Nonce, Point, Receiver, VerifyError, command_digest, report_data,
    wire::{DecodeError, Writer},
};

mod judgement;

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
            let _ = judgement::requirements("whole = true\nonly_named = true\nnever = [\"exec\"]").judge(&log);
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
