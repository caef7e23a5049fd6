//! Layers on the disk of a VM whose control socket a test serves.

use super::*;
use crate::{
    layers::{CachedLayer, Digest},
    sandbox::{Rootfs, VmLayers, Wanted},
};
use nix::{
    sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, send, socket},
    unistd::close,
};
use std::{
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
};
use vm_spec::control::{Reply, Request};

/// Sectors of each layer.
const SECTORS: u64 = 8;

/// Serves the control socket in place of the VMM: layers one after the other. Returns what is released.
fn serve_control(path: &Path) -> Arc<Mutex<Vec<Vec<u64>>>> {
    fs::remove_file(path).unwrap();
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    let released: Arc<Mutex<Vec<Vec<u64>>>> = Arc::default();
    let log = released.clone();
    std::thread::spawn(move || {
        let mut next = 0;
        while let Ok(client) = accept(listener.as_raw_fd()) {
            let mut bytes = vec![0; 1 << 14];
            while let Ok(length @ 1..) = recv(client, &mut bytes, MsgFlags::empty()) {
                let reply = match serde_json::from_slice(&bytes[..length]).unwrap() {
                    Request::AppendExtents(extents) => {
                        let first_sectors: Vec<_> = (0..extents.len() as u64).map(|n| next + n * SECTORS).collect();
                        next += first_sectors.len() as u64 * SECTORS;
                        Reply::Appended {
                            first_sectors,
                            capacity: next,
                        }
                    }
                    Request::ReleaseExtents(sectors) => {
                        log.lock().unwrap().push(sectors);
                        Reply::Done
                    }
                    other => panic!("{other:?}"),
                };
                send(client, &serde_json::to_vec(&reply).unwrap(), MsgFlags::empty()).unwrap();
            }
            close(client).unwrap();
        }
    });
    released
}

fn layer(n: u8) -> CachedLayer {
    CachedLayer {
        file: tempfile::tempfile().unwrap(),
        blob: Digest::from_sha256([n; 32]),
        diff_id: Digest::from_sha256([n; 32]),
        root_hash: [n; 32],
        data_blocks: 1,
        total_blocks: 1,
    }
}

#[tokio::test]
async fn layers_stay_after_their_last_container_and_go_when_there_is_no_room_and_the_guest_has_unmounted_them() {
    let world = World::new().await;
    let vm = world.service.0.sandbox.current().unwrap();
    let released = serve_control(&world.dir.path().join("run/ns/web/control.sock"));
    let disk = VmLayers::with_room(2, u64::MAX);
    let run = async |layers: &[u8]| {
        let layers: Vec<_> = layers.iter().map(|n| layer(*n)).collect();
        let rootfs = Rootfs::mount(&disk, &vm, "web", "c", Wanted::Attached(&layers)).await.unwrap();
        rootfs.unmount("c").await;
    };
    run(&[1, 2]).await;
    run(&[2, 1]).await;
    assert_eq!(released.lock().unwrap().len(), 0, "the same layers start again");
    // The guest was asked to unmount 2 last, and does not unmount 3.
    world.guest.refuse("unmount layer 0", Code::INTERNAL);
    run(&[3]).await;
    assert_eq!(*released.lock().unwrap(), [[0]]);
    world.guest.refused.lock().unwrap().clear();
    run(&[4]).await;
    assert_eq!(*released.lock().unwrap(), [vec![0], vec![SECTORS]]);
    run(&[5, 6]).await;
    assert_eq!(
        *released.lock().unwrap(),
        [vec![0], vec![SECTORS], vec![3 * SECTORS]],
        "not the one that may still be mounted"
    );
    disk.forget(&[Digest::from_sha256([5; 32])]).await;
    run(&[6]).await;
    assert_eq!(released.lock().unwrap().last(), Some(&vec![4 * SECTORS]));
    assert!(
        world.guest.asked("layer 0 at 16") && world.guest.asked("layer 1 at 24"),
        "numbers are used again"
    );
}
