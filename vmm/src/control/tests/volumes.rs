//! Disks in volume slots.

use super::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

fn attach(slot: u8, read_only: bool) -> Request {
    Request::AttachDisk { slot, read_only }
}

fn detach(slot: u8) -> Request {
    Request::DetachDisk { slot }
}

#[test]
fn a_slot_takes_one_disk_at_a_time() {
    let mut server = Server::new(false);
    let client = server.client();
    let mut ask = |request: Request, files: &[File]| server.ask(&client, &request, files);
    let disk = layer(512);
    assert!(reason(ask(detach(0), &[])).contains("volume slot 0: the slot has no disk"));
    assert_eq!(ask(attach(0, false), &[disk.try_clone().unwrap()]), Reply::Done);
    assert!(reason(ask(attach(0, false), &[layer(512)])).contains("has a disk; detach it first"));
    for (is_read_only, file) in [(false, disk.try_clone().unwrap()), (true, read_only(&disk))] {
        let refused = reason(ask(attach(1, is_read_only), &[file]));
        assert!(refused.contains("attached to slot 0 already"), "{refused}");
    }
    assert_eq!(ask(attach(1, true), &[read_only(&layer(1024))]), Reply::Done);
    assert_eq!(ask(detach(0), &[]), Reply::Done);
    assert!(reason(ask(detach(0), &[])).contains("no disk"));
    assert_eq!(ask(attach(0, true), &[read_only(&disk)]), Reply::Done, "again, and the other way");
}

#[test]
fn what_cannot_be_a_volume_is_refused_with_a_reason() {
    let mut server = Server::new(false);
    let client = server.client();
    let appending = layer(512);
    fcntl(&appending, FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap();
    let long = tempfile::tempfile().unwrap();
    long.set_len((1 << 20) + 512).unwrap();
    let unreadable = File::options()
        .write(true)
        .open(tempfile::NamedTempFile::new().unwrap().path())
        .unwrap();
    let cases: [(Request, Vec<File>, &str); 14] = [
        (
            attach(2, false),
            vec![layer(512)],
            "no volume slot 2 (`volumes.slots` of its spec is 2)",
        ),
        (attach(255, false), vec![layer(512)], "no volume slot 255"),
        (detach(2), vec![], "no volume slot 2"),
        (detach(0), vec![layer(512)], "attach_disk take file descriptors"),
        (attach(0, false), vec![], "one file descriptor; 0 came"),
        (attach(0, false), vec![layer(512), layer(512)], "one file descriptor; 2 came"),
        (attach(0, false), vec![layer(0)], "a multiple of 512 and not 0, not 0 bytes"),
        (attach(0, false), vec![layer(513)], "not 513 bytes"),
        (attach(0, true), vec![layer(512)], "a read-only one's for reading alone"),
        (attach(0, false), vec![read_only(&layer(512))], "open for reading and writing"),
        (attach(0, false), vec![unreadable], "open for reading and writing"),
        (attach(0, false), vec![appending], "neither for appending"),
        (
            attach(0, false),
            vec![long.try_clone().unwrap()],
            "1049088 bytes; the VM's spec allows 1048576",
        ),
        (
            attach(0, true),
            vec![File::open("/dev/zero").unwrap()],
            "a regular one or a block device",
        ),
    ];
    for (request, files, words) in cases {
        let refused = reason(server.ask(&client, &request, &files));
        assert!(refused.contains(words), "{request:?}: {refused}");
    }
    assert_eq!(
        server.ask(&client, &attach(0, true), &[read_only(&long)]),
        Reply::Done,
        "nothing writes it"
    );
    assert_eq!(server.ask(&client, &attach(1, false), &[layer(1 << 20)]), Reply::Done);
}
