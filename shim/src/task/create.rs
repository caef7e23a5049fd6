//! `Create`: bundle → configuration and policy → VM and layers → streams → the container in the guest.

use super::{
    Tasks,
    container::Container,
    process::{self, Process},
};
use crate::{
    bundle::{Bundle, BundleError, note_state},
    config::Config,
    error::Error,
    sandbox::{Rootfs, agent_call, explain},
    stdio::{StdioPaths, Streams},
};
use agent_protocol::{CreateContainerRequest, valid_caller_id};
use containerd_shim_protos::{
    api::{CreateTaskRequest, CreateTaskResponse},
    events::task::{TaskCreate, TaskIO},
    topics::TASK_CREATE_EVENT_TOPIC,
};
use protobuf::{CodedInputStream, well_known_types::any::Any};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// Runtime options as containerd's `ctr --runtime-config-path` and CRI send them.
const OPTIONS_TYPE: &str = "runtimeoptions.v1.Options";

/// Creates a container; a failure leaves nothing, not even the VM if nobody else is in it.
pub async fn create(tasks: &Arc<Tasks>, request: CreateTaskRequest) -> Result<CreateTaskResponse, Error> {
    crate::phase::reached("create");
    valid_caller_id(&request.id).map_err(|_| Error::Invalid("the container id is not an identifier"))?;
    if !request.checkpoint.is_empty() {
        return Err(Error::Unimplemented("restoring a checkpoint"));
    }
    let abort = tasks.containers.reserve(&request.id)?;
    let built = if request.id == tasks.sandbox.id() {
        // The VM goes with it, whatever was under way in there.
        tokio::select! {
            built = build(tasks, &request) => built,
            () = abort.notified() => Err(Error::Aborted),
        }
    } else {
        // The guest carries out what it was asked, whether anybody waits for it or not: what is half done in a VM that others
        // live in could never be undone.
        let built = build(tasks, &request).await;
        match timeout(Duration::ZERO, abort.notified()).await {
            Ok(()) => given_up(tasks, built).await,
            Err(_) => built,
        }
    };
    let container = match built {
        Ok(container) => container,
        Err(error) => {
            log::warn!("container {} was not created: {}", request.id, crate::error::describe(&error));
            tasks.after_failure(&request.id).await;
            return Err(error);
        }
    };
    let pid = container.vm().pid();
    tasks.containers.insert(container.clone());
    crate::phase::reached("created");
    tasks.events.publish(TASK_CREATE_EVENT_TOPIC, &created(request, pid));
    process::watch(container.clone(), container.init.clone(), tasks.events.clone());
    Ok(CreateTaskResponse { pid, ..Default::default() })
}

/// Takes back what was built for a container that nobody wants any more.
async fn given_up(tasks: &Tasks, built: Result<Arc<Container>, Error>) -> Result<Arc<Container>, Error> {
    let container = built?;
    tasks.sandbox.release(&container.id, &container.rootfs).await;
    Err(Error::Aborted)
}

async fn build(tasks: &Tasks, request: &CreateTaskRequest) -> Result<Arc<Container>, Error> {
    let bundle = Bundle::read(Path::new(&request.bundle))?;
    let config = match config_path(request.options.as_ref()) {
        Some(path) => Config::load(&path)?,
        None => Config::load_default()?,
    };
    let config = config.with_annotations(bundle.annotations())?;
    let spec = bundle.for_agent()?;
    // Before anything is booted: whatever becomes of this process, its clean-up finds the VM.
    note_state(Path::new(&request.bundle), &tasks.sandbox.state_path(&config)).map_err(BundleError::Note)?;
    let rootfs = tasks.sandbox.prepare(&request.id, &bundle, config).await?;
    match make(tasks, request, spec, &rootfs).await {
        Ok(init) => Ok(Arc::new(Container::new(
            request.id.clone(),
            request.bundle.clone(),
            rootfs,
            Arc::new(init),
        ))),
        Err(error) => {
            let error = explain(&rootfs.vm, error).await;
            // In a VM of its own it goes with the VM.
            if request.id != tasks.sandbox.id() {
                tasks.sandbox.release(&request.id, &rootfs).await;
            }
            Err(error)
        }
    }
}

async fn make(tasks: &Tasks, request: &CreateTaskRequest, spec: Vec<u8>, rootfs: &Rootfs) -> Result<Process, Error> {
    let paths = StdioPaths {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
        namespace: rootfs.vm.namespace().to_owned(),
        id: request.id.clone(),
    };
    let (streams, stdio) = Streams::open(&paths, rootfs.vm.vsock()).await?;
    let create = CreateContainerRequest {
        container_id: request.id.clone(),
        sandbox_id: tasks.sandbox.id().to_owned(),
        spec,
        stdio: Some(stdio).into(),
        ..Default::default()
    };
    let doing = format!("create container {}", request.id);
    rootfs
        .vm
        .agent()
        .create_container(agent_call(), &create)
        .await
        .map_err(Error::agent(doing))?;
    Ok(Process::init(paths, streams, rootfs.vm.pid()))
}

/// `config_path` (field 2) of `runtimeoptions.v1.Options`; other options, runc's for example, are not ours to read.
fn config_path(options: Option<&Any>) -> Option<PathBuf> {
    let options = options.filter(|any| any.type_url.rsplit('/').next() == Some(OPTIONS_TYPE))?;
    let mut input = CodedInputStream::from_bytes(&options.value);
    while let Ok(Some(tag)) = input.read_raw_tag_or_eof() {
        // Field 2, length-delimited (protobuf encoding: number << 3 | 2).
        if tag == 2 << 3 | 2 {
            return input.read_string().ok().filter(|path| !path.is_empty()).map(PathBuf::from);
        }
        protobuf::rt::skip_field_for_tag(tag, &mut input).ok()?;
    }
    None
}

fn created(request: CreateTaskRequest, pid: u32) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
        ..Default::default()
    };
    TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: Some(io).into(),
        checkpoint: request.checkpoint,
        pid,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(type_url: &str, value: &[u8]) -> Any {
        Any {
            type_url: type_url.to_owned(),
            value: value.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn the_configuration_may_come_with_the_runtimes_options() {
        // type_url = "x" (field 1), config_path = "/c" (field 2), as protobuf.
        let value = b"\x0a\x01x\x12\x02/c";
        assert_eq!(config_path(Some(&options("runtimeoptions.v1.Options", value))), Some("/c".into()));
        assert_eq!(
            config_path(Some(&options("type.googleapis.com/runtimeoptions.v1.Options", value))),
            Some("/c".into())
        );
        assert_eq!(config_path(Some(&options("containerd.runc.v1.Options", value))), None);
        assert_eq!(config_path(Some(&options("runtimeoptions.v1.Options", b"\x12\x00"))), None);
        assert_eq!(config_path(Some(&options("runtimeoptions.v1.Options", b"\x12\xff"))), None);
        assert_eq!(config_path(None), None);
    }
}
