//! Every call in every state, with a sleeping process as the VMM and an agent that a test controls.

mod layers;
mod pulled;
mod world;

use super::{container::Container, process::Exit, *};
use crate::{bundle::Role, vm::KILLED};
use containerd_shim_protos::api::Status;
use std::{fs, path::Path, time::Duration};
use tokio::time::timeout;
use ttrpc::Code;
use world::{World, code, context};

/// The door of a shim that nobody can find.
pub struct NoDoor;

impl Ending for NoDoor {
    fn end(&self) {}

    fn end_if(&self, close: &dyn Fn() -> bool) -> bool {
        close()
    }

    fn joined(&self, _: &str) {}
}

const SOON: Duration = Duration::from_secs(5);
const LIMITS: &[u8] = br#"{"pids":{"limit":7}}"#;

#[tokio::test]
async fn a_container_from_creation_to_shutdown() {
    let world = World::new().await;
    assert_eq!(world.status("").await, Ok(Status::CREATED));
    let pid = world.start("").await.unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the pid is not a process of the host");
    assert_eq!(world.start("").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    assert_eq!(world.delete("").await, Err(Code::FAILED_PRECONDITION));
    world.guest.exit("", 7);
    assert_eq!(world.wait("").await, Ok(7));
    assert_eq!(world.wait("").await, Ok(7));
    assert_eq!(world.status("").await, Ok(Status::STOPPED));
    assert_eq!(world.kill("", 9).await, Err(Code::NOT_FOUND));
    assert_eq!(world.exec("late").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.delete("").await, Ok(7));
    assert!(world.guest.asked("power off"));
    assert_eq!(world.delete("").await, Err(Code::NOT_FOUND));
    assert_eq!(world.status("").await, Err(Code::NOT_FOUND));
    assert!(!world.dir.path().join("run/ns").exists(), "the state directory is left");
    world.shutdown().await;
    timeout(SOON, world.finished.notified()).await.unwrap();
    assert_eq!(world.events().await, ["/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn execs_are_created_started_and_deleted() {
    let world = World::new().await;
    let pid = world.start("").await.unwrap();
    assert_eq!(world.start("e").await, Err(Code::NOT_FOUND));
    world.exec("e").await.unwrap();
    assert_eq!(world.exec("e").await, Err(Code::ALREADY_EXISTS));
    assert_eq!(world.exec("../e").await, Err(Code::INVALID_ARGUMENT));
    assert_eq!(world.kill("e", 9).await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.start("e").await, Ok(77));
    assert_eq!(world.start("e").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.pids().await, [pid, 77, 78], "the guest's, its init by the VMM's id");
    world.guest.deny("list");
    assert_eq!(world.pids().await, [pid, 77], "what the shim itself knows");
    assert_eq!(world.delete("e").await, Err(Code::FAILED_PRECONDITION));
    world.kill("e", 15).await.unwrap();
    assert_eq!(world.wait("e").await, Ok(143));
    assert_eq!(world.delete("e").await, Ok(143));
    assert!(world.guest.asked("delete"));
    // One that never started can be deleted, which ends a wait for it.
    world.exec("never").await.unwrap();
    let (waited, deleted) = tokio::join!(world.wait("never"), world.delete("never"));
    assert!(waited == deleted && waited == Ok(0), "{waited:?} {deleted:?}");
    let events = world.events().await;
    assert_eq!(
        events,
        [
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/exec-added"
        ]
    );
}

#[tokio::test]
async fn a_denied_exec_reports_the_reason_and_leaves_the_container_running() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.exec("e").await.unwrap();
    world.guest.deny("exec");
    let request = StartRequest {
        id: "web".into(),
        exec_id: "e".into(),
        ..Default::default()
    };
    match world.service.start(&context(), request).await {
        Err(ttrpc::Error::RpcStatus(status)) => {
            assert_eq!(
                (status.code(), status.message()),
                (Code::PERMISSION_DENIED, "denied by policy: exec")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(world.delete("e").await.is_ok());
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
}

#[tokio::test]
async fn a_created_container_can_be_killed() {
    let world = World::new().await;
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
    assert_eq!(world.start("").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.delete("").await, Ok(KILLED));
    assert_eq!(world.events().await, ["/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn a_signal_may_be_denied_but_sigkill_works() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.guest.deny("signal");
    assert_eq!(world.kill("", 15).await, Err(Code::PERMISSION_DENIED));
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
}

#[tokio::test]
async fn a_guest_that_refuses_everything_can_be_killed() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.guest.refuse("signal", Code::FAILED_PRECONDITION);
    assert_eq!(world.kill("", 15).await, Err(Code::FAILED_PRECONDITION));
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
}

#[tokio::test]
async fn a_kill_of_an_ended_process_does_not_end_the_vm() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.guest.refuse("signal", Code::NOT_FOUND);
    assert_eq!(world.kill("", 9).await, Err(Code::NOT_FOUND));
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
}

#[tokio::test]
async fn every_process_ends_with_the_vm() {
    let world = World::new().await;
    let pid = world.start("").await.unwrap();
    world.exec("e").await.unwrap();
    world.start("e").await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(world.wait("e").await, Ok(KILLED));
    assert_eq!(world.wait("").await, Ok(KILLED));
    assert_eq!(world.delete("").await, Ok(KILLED));
    assert!(!world.dir.path().join("run/ns").exists());
}

#[tokio::test]
async fn a_created_container_can_be_deleted() {
    let world = World::new().await;
    world.add("other", Role::Member).await;
    // In a pod the guest ends it with its processes; `web` goes on.
    let container = world.service.0.containers.get("other").unwrap();
    let (deleted, ()) = tokio::join!(world.delete_container("other"), async {
        while !world.guest.asked("unmount overlay") {
            tokio::task::yield_now().await;
        }
        assert!(
            matches!(container.init.begin_start(), Err(Error::State { .. })),
            "a start comes too late"
        );
        container.init.finish(Exit::now(KILLED));
    });
    assert_eq!(deleted, Ok(KILLED));
    assert_eq!(world.status("").await, Ok(Status::CREATED));
    // The last one goes with its VM, and its exit is reported before its end.
    assert_eq!(world.delete("").await, Ok(KILLED));
    assert!(world.guest.asked("power off") && !world.guest.asked("signal"));
    assert_eq!(world.delete("").await, Err(Code::NOT_FOUND));
    assert!(!world.dir.path().join("run/ns").exists());
    assert_eq!(world.events().await, ["/tasks/delete", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn a_creation_is_inserted_or_aborted_and_not_both() {
    let world = World::new().await;
    let tasks = &world.service.0;
    let creation = tasks.containers.reserve("late").unwrap();
    let container = {
        let vm = tasks.sandbox.current().unwrap();
        let rootfs = tasks
            .sandbox
            .add_container(&vm, "late", crate::sandbox::Wanted::Attached(&[]))
            .await
            .unwrap();
        let init = tasks.containers.get("web").unwrap().init.clone();
        Arc::new(Container::new("late".into(), String::new(), Role::Member, rootfs, init))
    };
    let deleted = world.delete_container("late");
    tokio::pin!(deleted);
    // The caller gives up after the container was built and before it is known.
    tokio::select! {
        biased;
        answer = &mut deleted => panic!("answered before anything was taken back: {answer:?}"),
        () = creation.abort() => {}
    }
    assert!(matches!(tasks.containers.insert(container), Err(Error::Aborted)));
    assert!(matches!(tasks.containers.reserve("late"), Err(Error::ContainerExists(_))));
    tasks.after_failure("late").await;
    creation.end();
    assert_eq!(timeout(SOON, deleted).await.unwrap(), Err(Code::NOT_FOUND));
    assert!(tasks.containers.reserve("late").is_ok(), "the same id at once");
}

#[tokio::test]
async fn a_member_is_given_up_while_its_layers_are_looked_for() {
    let world = World::new().await;
    let bundle = world.dir.path().join("member");
    fs::create_dir(&bundle).unwrap();
    let document = r#"{"ociVersion":"1.2.0","process":{"cwd":"/","args":["true"]},"annotations":{
        "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"web"}}"#;
    fs::write(bundle.join("config.json"), document).unwrap();
    let request = CreateTaskRequest {
        id: "member".into(),
        bundle: bundle.display().to_string(),
        ..Default::default()
    };
    let context = context();
    let both = async { tokio::join!(world.service.create(&context, request), world.delete_container("member")) };
    let (created, deleted) = timeout(SOON, both).await.unwrap();
    assert_eq!((code(created).err(), deleted), (Some(Code::CANCELLED), Err(Code::NOT_FOUND)));
}

#[tokio::test]
async fn a_shim_ends_when_it_was_asked_to_and_its_last_container_is_gone() {
    let world = World::new().await;
    world.add_stopped("other").await;
    world.shutdown().await;
    assert!(!world.has_ended().await, "under a container that runs");
    world.start("").await.unwrap();
    world.kill("", 9).await.unwrap();
    world.wait("").await.unwrap();
    world.shutdown().await;
    assert!(!world.has_ended().await, "before anybody could ask for the exits");
    assert_eq!(world.delete("").await, Ok(KILLED));
    assert!(!world.has_ended().await);
    world.delete_container("other").await.unwrap();
    assert!(world.has_ended().await, "without another call");
    let again = world.service.0.containers.reserve("late");
    assert!(matches!(again, Err(Error::Sandbox(_))), "a shim that ends creates nothing");
}

#[tokio::test]
async fn a_shim_that_was_asked_to_end_does_so_when_a_creation_fails() {
    let world = World::new().await;
    world.kill("", 9).await.unwrap();
    world.wait("").await.unwrap();
    world.delete("").await.unwrap();
    world.service.0.containers.reserve("late").unwrap();
    world.shutdown().await;
    assert!(!world.has_ended().await);
    world.service.0.after_failure("late").await;
    assert!(world.has_ended().await);
}

#[tokio::test]
async fn a_shim_whose_bundle_is_gone_ends_when_every_container_has_stopped() {
    let world = World::new().await;
    world.start("").await.unwrap();
    assert!(!world.service.0.end_if_over());
    fs::remove_dir(&world.bundle).unwrap();
    assert!(!world.service.0.end_if_over(), "a container runs");
    world.kill("", 9).await.unwrap();
    world.wait("").await.unwrap();
    assert!(world.service.0.end_if_over() && world.has_ended().await);
}

#[tokio::test]
async fn a_shim_that_containerd_abandons_before_its_first_container_ends() {
    let world = World::new().await;
    world.kill("", 9).await.unwrap();
    world.wait("").await.unwrap();
    world.delete("").await.unwrap();
    let soon = |given_up| timeout(Duration::from_millis(10), given_up);
    assert!(
        soon(world.service.watch_end()).await.is_err(),
        "it may yet be asked for a container"
    );
    // After its restart containerd asks, and removes the bundle of what was never created.
    let connect = ConnectRequest {
        id: "web".into(),
        ..Default::default()
    };
    let answer = world.service.connect(&context(), connect).await;
    assert_eq!(code(answer).err(), Some(Code::NOT_FOUND));
    assert!(soon(world.service.watch_end()).await.is_err(), "the question itself says nothing");
    fs::remove_dir(&world.bundle).unwrap();
    world.service.0.containers.reserve("late").unwrap();
    assert!(soon(world.service.watch_end()).await.is_err(), "it is creating one");
    world.service.0.containers.forget("late");
    soon(world.service.watch_end()).await.expect("the shim ends");
}

#[tokio::test]
async fn sigkill_of_a_member_never_costs_the_pod_its_vm() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.add("member", Role::Member).await;
    for code in [
        Code::FAILED_PRECONDITION,
        Code::PERMISSION_DENIED,
        Code::DEADLINE_EXCEEDED,
        Code::INTERNAL,
    ] {
        world.guest.refused.lock().unwrap().clear();
        world.guest.refuse("signal", code);
        assert_eq!(world.kill_container("member").await, Err(code));
    }
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    // The sandbox's own container ends it.
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
}

#[tokio::test]
async fn a_group_whose_guest_refuses_everything_can_be_killed() {
    let world = World::new().await;
    world.guest.exit("", 0);
    world.wait("").await.unwrap();
    world.add("one", Role::Grouped).await;
    world.add("two", Role::Grouped).await;
    world.guest.refuse("signal", Code::FAILED_PRECONDITION);
    assert_eq!(
        world.kill_container("one").await,
        Err(Code::FAILED_PRECONDITION),
        "it would cost the other"
    );
    let vm = world.service.0.sandbox.current().unwrap();
    assert!(!vm.has_ended());
    world.kill_container("two").await.unwrap();
    timeout(SOON, vm.ended()).await.expect("all of them were killed");
}

#[tokio::test]
async fn unknown_ids_and_unknown_calls() {
    let world = World::new().await;
    let state = StateRequest {
        id: "db".into(),
        ..Default::default()
    };
    assert_eq!(code(world.service.state(&context(), state).await).err(), Some(Code::NOT_FOUND));
    let connect = ConnectRequest {
        id: "db".into(),
        ..Default::default()
    };
    assert_eq!(code(world.service.connect(&context(), connect).await).err(), Some(Code::NOT_FOUND));
    let checkpoint = world.service.checkpoint(&context(), CheckpointTaskRequest::new()).await;
    assert_eq!(code(checkpoint).err(), Some(Code::UNIMPLEMENTED));
    assert_eq!(
        code(world.service.pause(&context(), PauseRequest::new()).await).err(),
        Some(Code::NOT_FOUND)
    );
    assert_eq!(
        code(world.service.stats(&context(), StatsRequest::new()).await).err(),
        Some(Code::NOT_FOUND)
    );
    let again = CreateTaskRequest {
        id: "web".into(),
        bundle: "/b".into(),
        ..Default::default()
    };
    assert_eq!(
        code(world.service.create(&context(), again).await).err(),
        Some(Code::ALREADY_EXISTS)
    );
    let escape = CreateTaskRequest {
        id: "../web".into(),
        ..Default::default()
    };
    assert_eq!(
        code(world.service.create(&context(), escape).await).err(),
        Some(Code::INVALID_ARGUMENT)
    );
}

#[tokio::test]
async fn a_paused_container_refuses_execs_and_can_be_resumed() {
    let world = World::new().await;
    assert_eq!(world.pause().await, Err(Code::FAILED_PRECONDITION));
    world.start("").await.unwrap();
    world.exec("e").await.unwrap();
    world.start("e").await.unwrap();
    world.exec("late").await.unwrap();
    assert_eq!(world.resume().await, Err(Code::FAILED_PRECONDITION));
    world.pause().await.unwrap();
    assert_eq!(world.pause().await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.status("").await, Ok(Status::PAUSED));
    assert_eq!(world.status("e").await, Ok(Status::PAUSED));
    assert_eq!(world.exec("new").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.start("late").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.delete("").await, Err(Code::FAILED_PRECONDITION));
    world.resume().await.unwrap();
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    assert_eq!(world.status("e").await, Ok(Status::RUNNING));
    // Killed while it is paused.
    world.pause().await.unwrap();
    world.kill("e", 9).await.unwrap();
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
    assert_eq!(world.status("").await, Ok(Status::STOPPED));
    assert_eq!(world.resume().await, Err(Code::FAILED_PRECONDITION));
    let events = world.events().await;
    let published = events
        .iter()
        .filter(|topic| topic.starts_with("/tasks/pau") || topic.starts_with("/tasks/res"));
    assert_eq!(published.collect::<Vec<_>>(), ["/tasks/paused", "/tasks/resumed", "/tasks/paused"]);
}

#[tokio::test]
async fn limits_and_counters_pass_through() {
    let world = World::new().await;
    world.update(LIMITS).await.unwrap();
    world.start("").await.unwrap();
    world.update(LIMITS).await.unwrap();
    assert_eq!(world.update(b"").await, Err(Code::INVALID_ARGUMENT));
    let request = StatsRequest {
        id: "web".into(),
        ..Default::default()
    };
    let stats = world.service.stats(&context(), request).await.unwrap().stats.unwrap();
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    world.guest.exit("", 0);
    world.wait("").await.unwrap();
    assert_eq!(world.update(LIMITS).await, Err(Code::FAILED_PRECONDITION));
}

#[tokio::test]
async fn without_a_terminal_there_is_nothing_to_resize() {
    let world = World::new().await;
    world.start("").await.unwrap();
    assert_eq!(world.resize("").await, Ok(()));
    assert!(!world.guest.asked("resize"));
    assert_eq!(world.resize("nobody").await, Err(Code::NOT_FOUND));
    world.guest.exit("", 0);
    world.wait("").await.unwrap();
    assert_eq!(world.resize("").await, Err(Code::FAILED_PRECONDITION));
}

#[tokio::test]
async fn every_oom_kill_is_published_before_the_exit() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.guest.ooms.send_modify(|kills| *kills += 1);
    world.guest.ooms.send_modify(|kills| *kills += 2);
    world.guest.exit("", KILLED);
    assert_eq!(world.wait("").await, Ok(KILLED));
    let events = world.events().await;
    assert_eq!(events, ["/tasks/start", "/tasks/oom", "/tasks/oom", "/tasks/oom", "/tasks/exit"]);
}

#[tokio::test]
async fn a_container_that_is_slow_to_die_delays_no_other() {
    let world = World::new().await;
    world.add_stopped("slow").await;
    world.guest.slow_to_die.send_modify(|slow| slow.push("slow"));
    let deleted = world.delete_container("slow");
    tokio::pin!(deleted);
    let neighbour = async {
        while !world.guest.asked("shut down") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.add_stopped("other").await;
        world.delete_container("other").await
    };
    tokio::select! {
        biased;
        answer = &mut deleted => panic!("{answer:?}"),
        answer = timeout(SOON, neighbour) => assert_eq!(answer.expect("a container that waits for no other"), Ok(0)),
    }
    world.guest.slow_to_die.send_modify(Vec::clear);
    assert_eq!(timeout(SOON, deleted).await.unwrap(), Ok(0));
    assert_eq!(world.status("").await, Ok(Status::CREATED));
}
