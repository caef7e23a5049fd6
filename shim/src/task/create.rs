//! `Create`: bundle → configuration and policy → VM and layers → streams → the container in the guest.

use super::{
    Tasks,
    container::{Container, Creation},
    end::is_gone,
    exit, ports,
    process::Process,
};
use crate::{
    bundle::{Bundle, BundleError, Netns, Role, note_state},
    cgroup,
    config::{Config, Pull},
    error::Error,
    layers::{
        self, Layers, WithoutBlob,
        converter::Converter,
        guest::{self, GuestImageError, PinnedImage},
    },
    options::Options,
    policy_text::PolicyText,
    sandbox::{Rootfs, SandboxSpec, Wanted, agent_call, with_vm_exit},
    stdio::{StdioPaths, Streams},
    vm::Vm,
};
use agent_protocol::{CreateContainerRequest, valid_caller_id};
use containerd_shim_protos::{
    api::{CreateTaskRequest, CreateTaskResponse},
    events::task::{TaskCreate, TaskIO},
    topics::TASK_CREATE_EVENT_TOPIC,
};
use std::{path::Path, sync::Arc};

/// Creates a container; a failure leaves nothing, and ends the VM if it has no other container.
pub async fn create(tasks: &Arc<Tasks>, request: CreateTaskRequest) -> Result<CreateTaskResponse, Error> {
    crate::timeline::reached("create");
    valid_caller_id(&request.id).map_err(|_| Error::Invalid("the container id is not an identifier"))?;
    if !request.checkpoint.is_empty() {
        return Err(Error::Unimplemented("restoring a checkpoint"));
    }
    let creation = tasks.containers.reserve(&request.id)?;
    tasks.door.joined(&request.id);
    let made = make_known(tasks, &request, &creation).await;
    if let Err(error) = &made {
        log::warn!("container {} was not created: {}", request.id, crate::describe::describe(error));
        tasks.after_failure(&request.id).await;
    }
    creation.end();
    let container = made?;
    if container.role == Role::Sandbox && tasks.sandbox.has_network_at_once() {
        forward_ports(tasks, &container).await;
    }
    let pid = container.vm().pid();
    crate::timeline::reached("created");
    Ok(CreateTaskResponse { pid, ..Default::default() })
}

/// Serves connections to the pod's loopback. A kernel that cannot redirect them costs the pod nothing else.
async fn forward_ports(tasks: &Arc<Tasks>, sandbox: &Container) {
    match tasks.sandbox.loopback().await {
        Ok(Some(loopback)) => {
            tokio::spawn(ports::serve(Arc::downgrade(tasks), sandbox.vm().clone(), loopback));
        }
        Ok(None) => {}
        Err(error) => log::warn!("no port of the pod can be forwarded: {}", crate::describe::describe(&error)),
    }
}

/// Builds the container and makes it known, unless its caller has given it up by then.
async fn make_known(tasks: &Arc<Tasks>, request: &CreateTaskRequest, creation: &Creation) -> Result<Arc<Container>, Error> {
    let container = build(tasks, request, creation).await?;
    // Its exit and deletion are published after its creation, however soon they come.
    let _order = container.init.in_order().await;
    // containerd removes the bundle of a creation that it has lost, as after its restart.
    let wanted = if is_gone(Path::new(&request.bundle)) {
        Err(Error::Aborted)
    } else {
        tasks.containers.insert(container.clone())
    };
    if let Err(error) = wanted {
        // With no other container it goes with its VM.
        if !tasks.containers.every_other(&container.id, |_| false) {
            tasks.sandbox.remove_container(&container.id, &container.rootfs).await;
        }
        return Err(error);
    }
    tasks
        .events
        .publish(TASK_CREATE_EVENT_TOPIC, &created(request, container.vm().pid()));
    exit::watch(container.clone(), container.init.clone(), tasks.events.clone());
    Ok(container.clone())
}

/// Builds the container; the creation of the sandbox's own ends when it is aborted.
async fn build(tasks: &Tasks, request: &CreateTaskRequest, creation: &Creation) -> Result<Arc<Container>, Error> {
    let bundle = Bundle::read(Path::new(&request.bundle))?;
    let role = bundle.group(&request.id).role;
    if role == Role::Sandbox {
        // The VM ends with its sandbox's container, whatever was under way in it.
        return tokio::select! {
            built = build_as(tasks, request, &bundle, role, creation) => built,
            () = creation.abort() => Err(Error::Aborted),
        };
    }
    // The guest completes a call even if the shim stops waiting for it. In a VM with other containers a half-built container
    // could not be taken back, so the creation is completed once its layers are there.
    build_as(tasks, request, &bundle, role, creation).await
}

async fn build_as(
    tasks: &Tasks,
    request: &CreateTaskRequest,
    bundle: &Bundle,
    role: Role,
    creation: &Creation,
) -> Result<Arc<Container>, Error> {
    let mut config = config(tasks, request).await?.clone();
    if let Some(pull) = tasks.sandbox.pull() {
        // Its pod's, unless it has an annotation of its own.
        config.pull = pull;
    }
    let config = config.with_annotations(bundle.annotations())?;
    let spec = bundle.for_agent()?;
    // A boot takes seconds, and the agent could only refuse.
    container_document::check(&spec)?;
    // Before the boot: if this process dies, `delete` finds the VM.
    let state = tasks.sandbox.state_path(&config.state_dir);
    note_state(Path::new(&request.bundle), &state).map_err(BundleError::Note)?;
    let cache_dir = config.cache_dir.clone();
    let converter = Converter {
        program: config.converter.clone(),
        cgroups_path: bundle.cgroups_path().to_owned(),
    };
    let is_pod = bundle.is_pod_sandbox();
    let without_blob = without_blob(tasks, bundle, &config)?;
    let find_layers = || async {
        // Nothing of them is in the guest yet: a layer that takes for ever is given up with its container.
        let found = tokio::select! {
            found = layers::of_container(&tasks.containerd, tasks.sandbox.namespace(), &request.id, &cache_dir, &converter, without_blob) => {
                found?
            }
            () = creation.abort() => return Err(Error::Aborted),
        };
        crate::timeline::reached("layers");
        Ok(found)
    };
    // The sandbox's container of CRI runs the guest's own pause: its image is not needed.
    let by_guest = !is_pod && config.pull == Pull::Guest;
    let find_first = || async {
        if is_pod || by_guest {
            Ok(Layers::default())
        } else {
            find_layers().await
        }
    };
    let find_image = || async {
        if by_guest {
            image_for_guest(tasks, bundle, &request.id).await.map(Some)
        } else {
            Ok(None)
        }
    };
    // In parallel: the first failure cancels the others.
    let (vm, mut layers, image) = tokio::try_join!(vm(tasks, bundle, role, config), find_first(), find_image())?;
    crate::timeline::reached("sandbox");
    tasks.sandbox.give_files(&vm, bundle.pod_files()).await?;
    if tasks.sandbox.has_network_at_once() {
        tasks.sandbox.connect(&vm).await?;
    }
    crate::timeline::reached("network");
    let pulled = match &image {
        Some(image) => Some(pull(tasks, &vm, image, creation).await?),
        None => None,
    };
    let wanted = pulled.as_deref().map_or(Wanted::Attached(&layers.cached), Wanted::Pulled);
    let added = match tasks.sandbox.add_container(&vm, &request.id, wanted).await {
        // Policies of other tools list the image of the sandbox's container.
        Err(denial) if is_pod && denial.is_denial() => {
            log::info!(
                "the policy has no container for the guest's own pause: using the image of container {}",
                request.id
            );
            match find_layers().await {
                Ok(found) => layers = found,
                Err(error) => {
                    log::info!("that image has no layers here: {}", crate::describe::describe(&error));
                    return Err(denial);
                }
            }
            let wanted = Wanted::Attached(&layers.cached);
            tasks.sandbox.add_container(&vm, &request.id, wanted).await
        }
        added => added,
    };
    let rootfs = match added {
        Err(error) if error.may_be_damage() => {
            let damaged = layers::remove_damaged(&cache_dir, layers.cached).await?;
            if damaged.is_empty() {
                return Err(error);
            }
            log::warn!(
                "{}; {} damaged layers are made anew",
                crate::describe::describe(&error),
                damaged.len()
            );
            tasks.sandbox.forget_layers(&damaged).await;
            let made = find_layers().await?.cached;
            tasks.sandbox.add_container(&vm, &request.id, Wanted::Attached(&made)).await?
        }
        other => other.map_err(|denial| denial.about_unpacked(&layers.unpacked))?,
    };
    crate::timeline::reached("rootfs");
    if role != Role::Sandbox {
        rootfs.vm.add_oom_score(bundle.oom_score_adj());
    }
    match make(tasks, request, spec, &rootfs).await {
        Ok(init) => Ok(Arc::new(Container::new(
            request.id.clone(),
            request.bundle.clone(),
            role,
            rootfs,
            Arc::new(init),
        ))),
        Err(error) => {
            let error = with_vm_exit(&rootfs.vm, error).await;
            // The sandbox's own container is removed with the VM.
            if role != Role::Sandbox {
                tasks.sandbox.remove_container(&request.id, &rootfs).await;
            }
            Err(error)
        }
    }
}

/// CRI: the image of a container, as the pod's author or containerd names it.
const CRI_IMAGE: &str = "io.kubernetes.cri.image-name";

/// The image that the guest is to pull for a container.
async fn image_for_guest(tasks: &Tasks, bundle: &Bundle, container: &str) -> Result<PinnedImage, Error> {
    let has_network = tasks.sandbox.has_network_at_once() || matches!(bundle.netns()?, Netns::Existing(_));
    if !has_network {
        return Err(GuestImageError::NoNetwork(container.to_owned()).into());
    }
    let named = bundle.annotations().get(CRI_IMAGE).map(String::as_str);
    Ok(guest::image_of(&tasks.containerd, tasks.sandbox.namespace(), container, named).await?)
}

/// Root hashes of the layers that the guest pulls. The container may be given up meanwhile; nothing of it is in the guest.
async fn pull(tasks: &Tasks, vm: &Vm, image: &PinnedImage, creation: &Creation) -> Result<Vec<[u8; 32]>, Error> {
    let pulled = tokio::select! {
        pulled = tasks.sandbox.pull_in_guest(vm, image) => pulled?,
        () = creation.abort() => return Err(Error::Aborted),
    };
    crate::timeline::reached("pulled");
    Ok(pulled)
}

/// What becomes of layers without blobs, by the policy of the sandbox, or the one that it is about to boot with.
fn without_blob(tasks: &Tasks, bundle: &Bundle, config: &Config) -> Result<WithoutBlob, Error> {
    let names = match tasks.sandbox.names_root_hashes() {
        Some(names) => names,
        None => PolicyText::choose(bundle.annotations(), config)?.names_root_hashes(),
    };
    Ok(if names { WithoutBlob::Refused } else { WithoutBlob::Files })
}

/// The sandbox's configuration: read for its first container, whatever the node's becomes and later ones ask for.
async fn config<'a>(tasks: &'a Tasks, request: &CreateTaskRequest) -> Result<&'a Config, Error> {
    let load = || async {
        let options = request.options.as_ref().map(Options::of).unwrap_or_default();
        match options.config_path {
            Some(path) => Config::load(&path),
            None => Config::load_default(),
        }
    };
    Ok(tasks.config.get_or_try_init(load).await?)
}

/// The sandbox's VM, booted for this container if it is the first. A CRI container never boots it: the policy is the sandbox
/// container's.
async fn vm(tasks: &Tasks, bundle: &Bundle, role: Role, config: Config) -> Result<Arc<Vm>, Error> {
    match tasks.sandbox.running().await? {
        Some(vm) => {
            config.served_by(vm.tee())?;
            Ok(vm)
        }
        None if role == Role::Member => Err(Error::Sandbox("not booted")),
        None => {
            if bundle.is_pod_sandbox() {
                config.fits(&cgroup::leaves(bundle.cgroups_path()))?;
            }
            tasks.sandbox.boot(SandboxSpec::new(bundle, config)?).await
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
    let created = rootfs.vm.agent().create_container(agent_call(), &create).await;
    let guest_pid = created.map_err(Error::agent(doing))?.pid;
    Ok(Process::init(paths, streams, rootfs.vm.pid(), guest_pid))
}

fn created(request: &CreateTaskRequest, pid: u32) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
        ..Default::default()
    };
    TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: Some(io).into(),
        pid,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{TaskService, tests::NoDoor},
        *,
    };
    use crate::{events::Publisher, sandbox::Sandbox};
    use protobuf::well_known_types::any::Any;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[tokio::test]
    async fn a_document_that_cannot_be_served_boots_no_vm() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(
            path("config.json"),
            r#"{"process":{"args":["sh"],"cwd":"/"},"mounts":[{"destination":"/data","type":"bind","source":"/srv"}],
                "linux":{"namespaces":[{"type":"network"}]}}"#,
        )
        .unwrap();
        fs::write(path("vmm"), format!("#!/bin/sh\n: >{}\n", path("started"))).unwrap();
        fs::set_permissions(path("vmm"), PermissionsExt::from_mode(0o755)).unwrap();
        let config = format!(
            "vmm = '{}'\nstate_dir = '{}'\ncache_dir = '{}'\n",
            path("vmm"),
            path("run"),
            path("cache")
        );
        fs::write(path("c.toml"), config).unwrap();
        let options = Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: [&[0x12, path("c.toml").len() as u8], path("c.toml").as_bytes()].concat(),
            ..Default::default()
        };
        let request = CreateTaskRequest {
            id: "web".into(),
            bundle: path(""),
            options: Some(options).into(),
            ..Default::default()
        };
        let sandbox = Arc::new(Sandbox::new("ns".into(), "web".into()));
        let events = Publisher::start("ns".into(), String::new());
        let service = TaskService::new(sandbox, path("no-containerd"), events, dir.path().into(), NoDoor);
        let Err(Error::Document(refused)) = create(&service.0, request).await else {
            panic!("it was not refused by its document")
        };
        assert!(refused.to_string().contains("mount at /data"), "{refused}");
        assert!(!dir.path().join("started").exists() && !dir.path().join("run").exists());
    }

    #[tokio::test]
    async fn a_sandbox_keeps_the_configuration_of_its_first_container() {
        let dir = tempfile::tempdir().unwrap();
        let service = TaskService::new(
            Arc::new(Sandbox::new("ns".into(), "web".into())),
            String::new(),
            Publisher::start("ns".into(), String::new()),
            dir.path().into(),
            NoDoor,
        );
        let request = |name: &str, memory: u32| {
            let path = dir.path().join(name).display().to_string();
            fs::write(&path, format!("memory_mib = {memory}")).unwrap();
            let options = Any {
                type_url: "runtimeoptions.v1.Options".into(),
                value: [&[0x12, path.len() as u8], path.as_bytes()].concat(),
                ..Default::default()
            };
            CreateTaskRequest {
                options: Some(options).into(),
                ..Default::default()
            }
        };
        for (name, memory) in [("first", 512), ("second", 1024)] {
            let config = config(&service.0, &request(name, memory)).await.unwrap();
            assert_eq!(config.memory_mib.get(), 512);
        }
    }
}
