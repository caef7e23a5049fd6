//! The calls of the Sandbox API that boot no VM.

use super::*;
use crate::{
    events::Publisher,
    task::{Ending, TaskService},
};
use protobuf::well_known_types::any::Any;
use std::{fs, path::Path};

struct NoDoor;

impl Ending for NoDoor {
    fn end(&self) {}

    fn end_if(&self, close: &dyn Fn() -> bool) -> bool {
        close()
    }

    fn joined(&self, _: &str) {}
}

fn service(dir: &Path) -> SandboxService {
    let pod = Arc::new(Pod::new("n".into(), "pod".into()));
    let events = Publisher::start("n".into(), String::new());
    let tasks = TaskService::new(pod.clone(), String::new(), events, dir.into(), NoDoor);
    SandboxService::new(Arc::new(tasks), pod)
}

fn context() -> TtrpcContext {
    TtrpcContext {
        mh: Default::default(),
        metadata: Default::default(),
        timeout_nano: 0,
        connection_data: Default::default(),
    }
}

fn asked(id: &str, dir: &Path) -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: id.to_owned(),
        bundle_path: dir.display().to_string(),
        netns_path: "/run/netns/x".to_owned(),
        ..Default::default()
    }
}

fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sandbox_is_created_once_and_only_the_shims_own() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path());
    let start = |id: &str| StartSandboxRequest {
        sandbox_id: id.to_owned(),
        ..Default::default()
    };
    assert_eq!(code(service.start_sandbox(&context(), start("pod")).await), Code::NOT_FOUND);
    assert_eq!(
        code(service.create_sandbox(&context(), asked("other", dir.path())).await),
        Code::NOT_FOUND
    );
    let mut strange = asked("pod", dir.path());
    strange.options = Some(Any {
        type_url: "x".to_owned(),
        ..Default::default()
    })
    .into();
    assert_eq!(code(service.create_sandbox(&context(), strange).await), Code::INVALID_ARGUMENT);
    service.create_sandbox(&context(), asked("pod", dir.path())).await.unwrap();
    assert_eq!(
        code(service.create_sandbox(&context(), asked("pod", dir.path())).await),
        Code::ALREADY_EXISTS
    );
    assert_eq!(code(service.start_sandbox(&context(), start("other")).await), Code::NOT_FOUND);

    let bundle = crate::bundle::Bundle::read(dir.path()).unwrap();
    assert!(bundle.is_pod_sandbox());
    assert_eq!(bundle.netns().unwrap(), crate::bundle::Netns::Existing("/run/netns/x".into()));
    let files = crate::pod_files::read(&bundle.pod_files()).unwrap();
    assert_eq!(files.shm_bytes, 64 << 20);
    assert!(files.hosts.starts_with(b"127.0.0.1"));
    container_document::check(&bundle.for_agent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_sandbox_without_a_vm_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path());
    service.create_sandbox(&context(), asked("pod", dir.path())).await.unwrap();
    let status = SandboxStatusRequest {
        sandbox_id: "pod".to_owned(),
        verbose: true,
        ..Default::default()
    };
    let status = service.sandbox_status(&context(), status).await.unwrap();
    assert_eq!((status.state.as_str(), status.pid), (NOT_READY, 0));
    assert!(status.info.contains_key("version") && status.created_at.is_none());
    let ping = PingRequest {
        sandbox_id: "pod".to_owned(),
        ..Default::default()
    };
    assert_eq!(code(service.ping_sandbox(&context(), ping).await), Code::UNAVAILABLE);
    let metrics = SandboxMetricsRequest {
        sandbox_id: "pod".to_owned(),
        ..Default::default()
    };
    assert_eq!(code(service.sandbox_metrics(&context(), metrics).await), Code::UNAVAILABLE);
    let platform = PlatformRequest {
        sandbox_id: "pod".to_owned(),
        ..Default::default()
    };
    let platform = service.platform(&context(), platform).await.unwrap();
    assert_eq!(
        (platform.platform.os.as_str(), platform.platform.architecture.as_str()),
        ("linux", "amd64")
    );
    // Stopped before it was started.
    let stop = StopSandboxRequest {
        sandbox_id: "pod".to_owned(),
        ..Default::default()
    };
    service.stop_sandbox(&context(), stop).await.unwrap();
}

#[test]
fn options_of_the_start_request_are_kept_in_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(bundle::kept_options(dir.path()), None);
    let options = Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value: b"\x12\x02/a".to_vec(),
        ..Default::default()
    };
    keep_options(dir.path(), &options).unwrap();
    assert_eq!(bundle::kept_options(dir.path()), Some(options));
    let group = crate::bundle::Bundle::group_in(dir.path(), "pod").unwrap();
    assert_eq!((group.id.as_str(), group.role), ("pod", crate::bundle::Role::Sandbox));
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(crate::bundle::Bundle::group_in(dir.path(), "pod").is_err());
}
