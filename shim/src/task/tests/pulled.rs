//! Containers whose layers the guest has pulled.

use super::{SOON, World};
use crate::{error::Error, layers::guest::PinnedImage, sandbox::Wanted};
use std::time::Duration;
use tokio::time::timeout;
use ttrpc::Code;

fn image(name: &str) -> PinnedImage {
    PinnedImage::of_test(name)
}

/// Calls of the agent about pulls and layers, in their order.
fn calls(world: &World) -> Vec<String> {
    let mut calls = world.guest.calls.lock().unwrap().clone();
    calls.retain(|call| call.contains("layer") || call == "pull");
    calls
}

#[tokio::test]
async fn an_image_is_pulled_once_and_its_layers_are_shared() {
    let world = World::new().await;
    let sandbox = &world.service.0.sandbox;
    let vm = sandbox.current().unwrap();
    let layers = sandbox.pull_in_guest(&vm, &image("r.corp/a")).await.unwrap();
    assert_eq!(sandbox.pull_in_guest(&vm, &image("r.corp/a")).await.unwrap(), layers);
    let other = sandbox.pull_in_guest(&vm, &image("r.corp/other")).await.unwrap();
    assert_eq!((layers[0], layers.len(), other[0]), ([1; 32], 2, [1; 32]));

    let first = sandbox.add_container(&vm, "one", Wanted::Pulled(&layers)).await.unwrap();
    let second = sandbox.add_container(&vm, "two", Wanted::Pulled(&other)).await.unwrap();
    let mounted = ["pull", "pull", "mount layer 0", "mount layer 1", "mount layer 2"];
    assert_eq!(calls(&world), mounted);
    sandbox.remove_container("one", &first).await;
    assert_eq!(calls(&world)[mounted.len()..], ["unmount layer 1"]);
    sandbox.remove_container("two", &second).await;
    assert_eq!(calls(&world)[mounted.len() + 1..], ["unmount layer 2", "unmount layer 0"]);
    // Again, in the slots that they have.
    sandbox.add_container(&vm, "three", Wanted::Pulled(&layers)).await.unwrap();
    assert_eq!(calls(&world)[mounted.len() + 3..], ["mount layer 0", "mount layer 1"]);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_any_more_goes_on() {
    let world = World::new().await;
    let sandbox = world.service.0.sandbox.clone();
    let vm = sandbox.current().unwrap();
    world.guest.pulls_end.send_replace(false);
    let (a, b) = (image("r.corp/a"), image("r.corp/b"));
    assert!(timeout(Duration::from_millis(100), sandbox.pull_in_guest(&vm, &a)).await.is_err());
    // The same image and another wait for it: the guest pulls one at once.
    let both = async { tokio::join!(sandbox.pull_in_guest(&vm, &a), sandbox.pull_in_guest(&vm, &b)) };
    tokio::pin!(both);
    assert!(timeout(Duration::from_millis(100), &mut both).await.is_err());
    assert_eq!(calls(&world), ["pull"]);
    world.guest.pulls_end.send_replace(true);
    let (first, second) = timeout(SOON, both).await.unwrap();
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(calls(&world), ["pull", "pull"]);
}

#[tokio::test]
async fn a_pull_that_fails_is_tried_again_for_the_next_container() {
    let world = World::new().await;
    let sandbox = &world.service.0.sandbox;
    let vm = sandbox.current().unwrap();
    world.guest.refuse("pull", Code::FAILED_PRECONDITION);
    let failed = sandbox.pull_in_guest(&vm, &image("r.corp/a")).await.unwrap_err();
    let said = ttrpc::Error::from(failed).to_string();
    assert!(said.contains("cannot pull image r.corp/a in the guest: "), "{said}");
    world.guest.refused.lock().unwrap().clear();
    world.guest.deny("pull");
    let denied = sandbox.pull_in_guest(&vm, &image("r.corp/a")).await.unwrap_err();
    assert!(denied.is_denial(), "{denied}");
    world.guest.refused.lock().unwrap().clear();
    let pulled: Result<_, Error> = sandbox.pull_in_guest(&vm, &image("r.corp/a")).await;
    assert!(pulled.is_ok());
}
