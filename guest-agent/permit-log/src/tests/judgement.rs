//! What a verifier requires of a log, before and after entries were folded.

use super::*;
use crate::{Finding, Requirements};

pub fn requirements(text: &str) -> Requirements {
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
    // One of another kind was there for a moment, long ago.
    run(&mut log, 7, 0x22, &["/app"]);
    run(&mut log, 8, 0x11, &["/other"]);
    for container in [7, 8] {
        act(&mut log, Entry::Remove { container: id(container) }, true);
        act(&mut log, Entry::RootfsRemoved { container: id(container) }, true);
    }
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
    assert_eq!(unmet("started_before = [[\"proxy\", \"app\"]]", &log), [""; 0]);
    assert!(unmet("only_named = true", &log)[0].contains(&hex::encode(id(8))));
    let kept = log.entries().filter(|(position, _)| *position < log.folded()).count();
    assert!(kept < 100, "{kept}");
}

#[test]
fn what_was_removed_stays_removed() {
    let mut log = log_of([Entry::Policy { digest: id(9) }]);
    // No exit of it was logged, and it is the last one that was started.
    run(&mut log, 1, 0x11, &["/proxy"]);
    act(&mut log, Entry::Remove { container: id(1) }, true);
    for _ in 0..5 {
        // Removals of others must not make the proxy's superfluous.
        let other = Entry::Create {
            container: id(3),
            command: id(3),
            sandbox: false,
            privileged: false,
        };
        act(&mut log, other, true);
        act(&mut log, Entry::Remove { container: id(3) }, true);
        let folded = log.folded();
        while log.folded() == folded {
            act(&mut log, exec(3), true);
        }
    }
    run(&mut log, 2, 0x22, &["/app"]);
    assert!(unmet("started_before = [[\"proxy\", \"app\"]]", &log)[0].contains("no proxy was running"));
    assert!(log.entries().count() < 9_000, "{}", log.entries().count());
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
