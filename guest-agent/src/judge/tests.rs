//! Nothing permitted is missing from the log, and nothing denied is in it.

use policy::{
    OPEN_DOOR, RootHash,
    action::{MountDevice, PauseContainer, UnmountDevice},
};
use tokio::sync::watch;

use super::*;
use crate::reaper::Exit;

const DIGEST: [u8; 32] = [9; 32];

fn judge_for(policy: &str) -> (Judge, SharedLog) {
    let log = SharedLog::default();
    let judge = Judge::new(Enforcer::new(policy).unwrap(), DIGEST, log.clone()).unwrap();
    (judge, log)
}

/// The log without the policy.
fn entries(log: &SharedLog) -> Vec<Entry> {
    log.lock().entries().skip(1).map(|(_, entry)| entry.clone()).collect()
}

fn mount(layer: u8) -> MountDevice {
    MountDevice::new("/run/mounts/scsi/m0", RootHash::new(&[layer; 32]))
}

#[test]
fn a_permit_is_in_the_log_before_anybody_has_it() {
    let (mut judge, log) = judge_for(OPEN_DOOR);
    let permit = judge.enforce(mount(1)).unwrap();
    assert_eq!(entries(&log), [Entry::Layer { root: [1; 32] }]);
    // It was given, whatever becomes of it.
    drop(permit);
    judge.conclude(false);
    let mut whole = judge.transaction();
    whole.enforce(mount(2)).unwrap().commit();
    drop(whole);
    let entries = entries(&log);
    assert_eq!(
        entries[1..],
        [Entry::Outcome { of: 1, done: false }, Entry::Layer { root: [2; 32] }]
    );
    judge.conclude(true);
    judge.conclude(true);
    assert_eq!(log.lock().len(), 5, "an act has one outcome");
}

#[test]
fn what_is_denied_is_not_in_the_log() {
    let (mut judge, log) = judge_for("package policy\napi_version := \"0.12.0\"\n");
    assert!(matches!(judge.enforce(mount(1)), Err(Refusal::Denied(_))));
    judge.conclude(false);
    assert_eq!(entries(&log), []);
}

#[test]
fn what_cannot_be_logged_is_not_permitted() {
    let (mut judge, log) = judge_for(OPEN_DOOR);
    let mut root = [0; 32];
    let mut layer: u64 = 0;
    while log.append(Entry::Layer { root }).is_ok() {
        layer += 1;
        root[..8].copy_from_slice(&layer.to_le_bytes());
    }
    let before = log.lock().head();
    assert!(matches!(judge.enforce(mount(1)), Err(Refusal::Full(Full))));
    assert!(matches!(judge.transaction().enforce(mount(1)), Err(Refusal::Full(Full))));
    assert_eq!(judge.note(Entry::Start { container: [1; 32] }), Err(Full));
    assert_eq!(log.lock().head(), before);
}

#[test]
fn permission_to_read_properties_is_logged_once() {
    let (mut judge, log) = judge_for(OPEN_DOOR);
    for _ in 0..3 {
        judge.enforce(GetProperties {}).unwrap().commit();
        judge.conclude(true);
    }
    assert_eq!(entries(&log).len(), 2);
}

#[test]
fn each_other_entry_names_its_point() {
    let (mut judge, log) = judge_for(OPEN_DOOR);
    let container_id = policy::ContainerId::new("web");
    let subject = Some(id(&container_id));
    judge.enforce(PauseContainer { container_id }).unwrap().commit();
    let unmount_target = "/run/mounts/scsi/m0".to_owned();
    judge.enforce(UnmountDevice { unmount_target }).unwrap().commit();
    let seen = entries(&log);
    assert!(matches!(&seen[0], Entry::Other { subject: it, .. } if *it == subject));
    assert_eq!(
        seen.iter().map(Entry::kind).collect::<Vec<_>>(),
        ["pause_container", "unmount_device"]
    );
}

#[test]
fn the_log_has_a_word_for_every_point_of_a_policy() {
    let own_kind = [
        "mount_device",
        "mount_overlay",
        "unmount_overlay",
        "create_container",
        "exec_in_container",
        "exec_external",
        "shutdown_container",
        "signal_container_process",
        "load_fragment",
        "load_transparency_trust_list",
    ];
    for point in policy::POINTS.iter().chain(policy::OWN_POINTS) {
        let is_other = permit_log::Point::named(point.name).is_some();
        assert!(is_other != own_kind.contains(&point.name), "{}", point.name);
    }
}

#[tokio::test]
async fn an_exit_is_logged_when_it_comes() {
    let (mut judge, log) = judge_for(OPEN_DOOR);
    let (ends, exit) = watch::channel(None);
    judge.enforce(mount(1)).unwrap().commit();
    judge.follow(exit);
    judge.conclude(true);
    tokio::task::yield_now().await;
    assert_eq!(entries(&log).len(), 2);
    ends.send_replace(Some(Exit { status: 137, at_ns: 0 }));
    while entries(&log).len() == 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(entries(&log)[2], Entry::Exit { of: 1, status: 137 });
}
