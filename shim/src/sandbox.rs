//! The one VM of a shim, and the containers' root file systems in it.
//!
//! ```text
//!              boot()            agent answers, policy set
//!   Created ──────────► Booting ────────────────────────────► Ready
//!                          │ boot fails                         │ stop(): last container deleted, or VMM ended
//!                          ▼                                    ▼
//!                        Gone ◄───────────────────────────── Stopping
//! ```
//! Any call may read the phase at any time. `transition` orders boot and stop and is held through them; no other call takes
//! it, so that State, Connect, Pids and Shutdown never wait for a boot. Mounts have locks of their own, see [`rootfs`].

mod files;
mod network;
mod pulled;
mod rootfs;

pub use rootfs::{Rootfs, Wanted};

use crate::{
    bundle::{Bundle, FileSources, Netns},
    config::{Config, Pull, Scratch},
    error::Error,
    fragments,
    layers::{Digest, guest::PinnedImage},
    policy_text::PolicyText,
    vm::{BootRequest, References, Vm, VmError},
};
use agent_protocol::{LoadFragmentRequest, MountScratchRequest, SetPolicyRequest};
use files::PodFiles;
use network::PodNetwork;
use nix::sys::statvfs::statvfs;
use pod_network::{Loopback, NetworkError};
use pulled::Pulled;
#[cfg(test)]
pub use rootfs::VmLayers;
#[cfg(not(test))]
use rootfs::VmLayers;
use shim_state::SandboxDir;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// The agent must answer a call that changes something within this time. Emulated guests are slow.
pub const AGENT_CALL: Duration = Duration::from_secs(120);

/// A file system with less room than this, in bytes, is full: an empty scratch disk takes more.
const FULL: u64 = 512 << 10;

/// Context of an agent call with [`AGENT_CALL`].
pub fn agent_call() -> ttrpc::context::Context {
    ttrpc::context::with_duration(AGENT_CALL)
}

/// The error for the caller: an unanswered call becomes [`Error::Ended`] where the VM has ended.
pub async fn with_vm_exit(vm: &Vm, error: Error) -> Error {
    let Some(doing) = error.unanswered_call() else {
        return error;
    };
    match vm.exit_report().await {
        Some((status, console)) => Error::Ended { doing, status, console },
        None => error,
    }
}

/// Where a sandbox is in its life.
#[derive(Clone)]
enum Phase {
    Created,
    Booting,
    Ready(Arc<Vm>),
    Stopping,
    Gone,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Created => "not booted",
            Self::Booting => "booting",
            Self::Ready(_) => "running",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        }
    }

    /// Whether `next` may follow: the diagram above, as a table.
    const fn allows(&self, next: &Self) -> bool {
        matches!(
            (self, next),
            (Self::Created, Self::Booting | Self::Gone)
                | (Self::Booting, Self::Ready(_) | Self::Gone)
                | (Self::Ready(_), Self::Stopping)
                | (Self::Stopping, Self::Gone)
        )
    }
}

/// What a sandbox is booted from: the node's configuration, and the annotations of the container that it is booted for.
pub struct SandboxSpec {
    config: Config,
    policy: PolicyText,
    fragments: Vec<LoadFragmentRequest>,
    references: References,
    cgroups_path: String,
    oom_score_adj: Option<i32>,
    netns: Netns,
}

impl SandboxSpec {
    /// The spec by `config`, annotations applied, and the container's `bundle`.
    ///
    /// # Errors
    /// When the policy, the fragments or the guest image's reference values cannot be used, and when a namespace of the host is asked for.
    pub fn new(bundle: &Bundle, config: Config) -> Result<Self, Error> {
        Ok(Self {
            policy: PolicyText::choose(bundle.annotations(), &config)?,
            fragments: fragments::requests(bundle.annotations())?,
            references: References::read(&config.image_dir).map_err(VmError::from)?,
            cgroups_path: bundle.cgroups_path().to_owned(),
            oom_score_adj: bundle.oom_score_adj(),
            netns: bundle.netns()?,
            config,
        })
    }
}

/// The sandbox that this shim owns.
pub struct Sandbox {
    namespace: String,
    id: String,
    phase: Mutex<Phase>,
    /// Held through a boot and through a stop.
    transition: tokio::sync::Mutex<()>,
    layers: VmLayers,
    pulled: Pulled,
    files: PodFiles,
    network: PodNetwork,
    /// Where the pod's network is, once the VM was booted.
    netns: OnceLock<Netns>,
    /// Whether the policy names root hashes, once there is one.
    names_root_hashes: OnceLock<bool>,
    /// Who brings the layers of containers that do not say, once the VM was booted.
    pull: OnceLock<Pull>,
}

impl Sandbox {
    /// A sandbox that has not booted.
    pub fn new(namespace: String, id: String) -> Self {
        Self {
            namespace,
            id,
            phase: Mutex::new(Phase::Created),
            transition: tokio::sync::Mutex::default(),
            layers: VmLayers::default(),
            pulled: Pulled::default(),
            files: PodFiles::default(),
            network: PodNetwork::default(),
            netns: OnceLock::new(),
            names_root_hashes: OnceLock::new(),
            pull: OnceLock::new(),
        }
    }

    /// A sandbox whose VM was booted without an image.
    #[cfg(test)]
    pub fn booted(id: &str, vm: Arc<Vm>) -> Self {
        let sandbox = Self::new("ns".into(), id.into());
        assert!(sandbox.enter(Phase::Booting) && sandbox.enter(Phase::Ready(vm)));
        sandbox
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// containerd namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Path of its state directory below `root`.
    pub fn state_path(&self, root: &Path) -> PathBuf {
        SandboxDir::path_below(root, &self.namespace, &self.id)
    }

    /// Boots the VM and prepares the guest for containers, unless another container's boot came first.
    ///
    /// # Errors
    /// When the sandbox is stopping or gone, or a step of the boot fails: then it is gone for good.
    pub async fn boot(&self, spec: SandboxSpec) -> Result<Arc<Vm>, Error> {
        let _transition = self.transition.lock().await;
        if let Some(vm) = self.ready()? {
            return Ok(vm);
        }
        let booting = Attempt::begin(self)?;
        // A sandbox boots once.
        let _ = self.names_root_hashes.set(spec.policy.names_root_hashes());
        let _ = self.netns.set(spec.netns.clone());
        let _ = self.pull.set(spec.config.pull);
        let request = BootRequest {
            namespace: &self.namespace,
            id: &self.id,
            config: &spec.config,
            policy: &spec.policy,
            cgroups_path: &spec.cgroups_path,
            oom_score_adj: spec.oom_score_adj,
        };
        let started = std::time::Instant::now();
        let vm = Vm::boot(request).await?;
        log::info!("agent of sandbox {} answers after {:?}", self.id, started.elapsed());
        if let Err(error) = self.prepare_guest(&vm, spec).await {
            return Err(with_vm_exit(&vm, error).await);
        }
        let vm = Arc::new(vm);
        booting.succeed(vm.clone());
        Ok(vm)
    }

    /// The VM for one more container, once a boot under way has ended; `None` for a sandbox that has not booted.
    ///
    /// # Errors
    /// When the sandbox is stopping or gone, or its VM has ended.
    pub async fn running(&self) -> Result<Option<Arc<Vm>>, Error> {
        let _transition = self.transition.lock().await;
        self.ready()
    }

    /// Whether the policy that the guest was booted with names root hashes of layers; `None` before a boot.
    pub fn names_root_hashes(&self) -> Option<bool> {
        self.names_root_hashes.get().copied()
    }

    /// Who brings the layers of containers that do not say, by what the VM was booted for; `None` before a boot.
    pub fn pull(&self) -> Option<Pull> {
        self.pull.get().copied()
    }

    fn ready(&self) -> Result<Option<Arc<Vm>>, Error> {
        match &*self.phase() {
            Phase::Created => Ok(None),
            Phase::Ready(vm) if !vm.has_ended() => Ok(Some(vm.clone())),
            Phase::Ready(_) => Err(Error::Sandbox(Phase::Gone.name())),
            other => Err(Error::Sandbox(other.name())),
        }
    }

    /// Gives the guest the pod's files that a container brings.
    ///
    /// # Errors
    /// When a file cannot be read, or the guest refuses.
    pub async fn give_files(&self, vm: &Vm, sources: FileSources) -> Result<(), Error> {
        self.files.update(vm, &self.id, sources).await
    }

    /// Connects the VM to the pod's network, unless it is connected or there is none yet.
    ///
    /// # Errors
    /// When a step on the host fails, or the guest refuses.
    pub async fn connect(&self, vm: &Vm) -> Result<(), Error> {
        match self.netns.get() {
            // The next call of its agent says how it ended.
            _ if vm.has_ended() => Ok(()),
            Some(netns) => self.network.connect(vm, netns, self.files.name_servers().await).await,
            None => Ok(()),
        }
    }

    /// Whether the pod's network is there before its first container is created.
    pub fn has_network_at_once(&self) -> bool {
        matches!(self.netns.get(), Some(Netns::Existing(_)))
    }

    /// Listens on the loopback of the pod's network; `None` before there is one.
    ///
    /// # Errors
    /// When the kernel cannot redirect connections.
    pub async fn loopback(&self) -> Result<Option<Loopback>, NetworkError> {
        self.network.loopback().await
    }

    /// Mounts the root file system of `container` in the guest.
    ///
    /// # Errors
    /// Whatever failed first; the layers of this container are unmounted again.
    pub async fn add_container(&self, vm: &Arc<Vm>, container: &str, layers: Wanted<'_>) -> Result<Rootfs, Error> {
        match Rootfs::mount(&self.layers, vm, &self.id, container, layers).await {
            Ok(rootfs) => Ok(rootfs),
            Err(error) => Err(with_vm_exit(vm, error).await),
        }
    }

    /// Has the guest pull an image, and returns the root hashes of its layers, bottom first. Given up, the pull goes on.
    ///
    /// # Errors
    /// When the guest refuses or cannot pull it.
    pub async fn pull_in_guest(&self, vm: &Vm, image: &PinnedImage) -> Result<Vec<[u8; 32]>, Error> {
        match self.pulled.layers(vm.agent(), &self.id, image).await {
            Ok(layers) => Ok(layers),
            Err(error) => Err(with_vm_exit(vm, error).await),
        }
    }

    /// Forgets layers whose files are damaged.
    pub async fn forget_layers(&self, blobs: &[Digest]) {
        self.layers.forget(blobs).await;
    }

    /// Takes a container out of the guest. A failure is logged: for the host the container is gone.
    pub async fn remove_container(&self, container: &str, rootfs: &Rootfs) {
        if !rootfs.vm.has_ended() {
            rootfs.unmount(container).await;
        }
    }

    /// Powers the guest off and removes what the VM has on the host.
    pub async fn stop(&self) {
        let _transition = self.transition.lock().await;
        if let Some(vm) = self.leave() {
            if !vm.has_ended() {
                vm.power_off().await;
            }
            vm.forget();
            self.network.disconnect().await;
            self.enter(Phase::Gone);
        }
    }

    /// Kills the VM: nothing in it is worth keeping.
    pub async fn discard(&self) {
        if let Some(vm) = self.current() {
            vm.kill();
        }
        let _transition = self.transition.lock().await;
        if let Some(vm) = self.leave() {
            vm.kill_and_wait().await;
            vm.forget();
            self.network.disconnect().await;
            self.enter(Phase::Gone);
        }
    }

    /// The VM while it is ready.
    pub fn current(&self) -> Option<Arc<Vm>> {
        match &*self.phase() {
            Phase::Ready(vm) => Some(vm.clone()),
            _ => None,
        }
    }

    /// Gives the guest what it needs before its first container: the policy, its fragments, the scratch.
    async fn prepare_guest(&self, vm: &Vm, spec: SandboxSpec) -> Result<(), Error> {
        let set = SetPolicyRequest {
            policy: spec.policy.text,
            reference_info: spec.references.plain,
            transparent_reference_info: spec.references.transparent,
            ..Default::default()
        };
        vm.agent()
            .set_policy(agent_call(), &set)
            .await
            .map_err(Error::agent("set the policy"))?;
        for (n, fragment) in spec.fragments.iter().enumerate() {
            let loaded = vm.agent().load_fragment(agent_call(), fragment).await;
            loaded.map_err(Error::agent(format!("load fragment {}", n + 1)))?;
        }
        let scratch = MountScratchRequest {
            sandbox_id: self.id.clone(),
            encrypted: spec.config.scratch == Scratch::Disk,
            in_memory: spec.config.scratch == Scratch::Memory,
            ..Default::default()
        };
        vm.agent()
            .mount_scratch(agent_call(), &scratch)
            .await
            .map_err(|answer| scratch_failed(&spec.config, answer))?;
        Ok(())
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        // Only whole values are ever assigned, so what a panicking thread left is sound.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to `next` if the diagram allows it.
    fn enter(&self, next: Phase) -> bool {
        let mut phase = self.phase();
        let allowed = phase.allows(&next);
        if allowed {
            log::debug!("sandbox {}: {} → {}", self.id, phase.name(), next.name());
            *phase = next;
        }
        allowed
    }

    /// Ready → Stopping; returns the VM.
    fn leave(&self) -> Option<Arc<Vm>> {
        let vm = self.current()?;
        self.enter(Phase::Stopping).then_some(vm)
    }
}

/// Why the guest has no scratch. Only the host sees that the disk's file cannot grow.
fn scratch_failed(config: &Config, answer: ttrpc::Error) -> Error {
    if config.scratch == Scratch::Memory {
        return Error::agent("mount scratch in memory")(answer);
    }
    let free = statvfs(&config.cache_dir).map(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
    match free {
        Ok(bytes) if bytes < FULL => Error::ScratchFull {
            directory: config.cache_dir.clone(),
            source: answer,
        },
        _ => Error::agent("mount the scratch disk")(answer),
    }
}

/// A boot under way. Dropped without success, which a cancelled boot does too, it leaves the sandbox gone.
struct Attempt<'a>(Option<&'a Sandbox>);

impl<'a> Attempt<'a> {
    fn begin(sandbox: &'a Sandbox) -> Result<Self, Error> {
        if sandbox.enter(Phase::Booting) {
            Ok(Self(Some(sandbox)))
        } else {
            Err(Error::Sandbox(sandbox.phase().name()))
        }
    }

    fn succeed(mut self, vm: Arc<Vm>) {
        if let Some(sandbox) = self.0.take() {
            sandbox.enter(Phase::Ready(vm));
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(sandbox) = self.0.take() {
            sandbox.enter(Phase::Gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_boot_leaves_the_sandbox_gone() {
        let sandbox = Sandbox::new("ns".into(), "web".into());
        assert!(sandbox.current().is_none());
        drop(Attempt::begin(&sandbox).unwrap());
        assert!(matches!(Attempt::begin(&sandbox), Err(Error::Sandbox("gone"))));
    }

    #[test]
    fn a_scratch_disk_that_fails_is_explained_only_where_the_host_knows_why() {
        let answer = || ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INTERNAL, "a block device cannot be set up"));
        let at = |dir: &str| Config {
            cache_dir: dir.into(),
            ..Config::default()
        };
        assert!(matches!(scratch_failed(&at("/"), answer()), Error::Agent { .. }));
        assert!(matches!(scratch_failed(&at("/nowhere"), answer()), Error::Agent { .. }));
        let in_memory = Config {
            scratch: Scratch::Memory,
            ..at("/proc")
        };
        assert!(matches!(scratch_failed(&in_memory, answer()), Error::Agent { .. }));
        // A file system of the kernel's has no blocks at all.
        let full = scratch_failed(&at("/proc"), answer());
        assert!(
            ttrpc::Error::from(full)
                .to_string()
                .contains("no space left on device: the file system of /proc is full")
        );
    }

    #[test]
    fn a_second_boot_is_refused_while_one_runs() {
        let sandbox = Sandbox::new("ns".into(), "web".into());
        let _first = Attempt::begin(&sandbox).unwrap();
        assert!(matches!(Attempt::begin(&sandbox), Err(Error::Sandbox("booting"))));
    }

    #[test]
    fn phases_change_only_as_the_diagram_shows() {
        use Phase::{Booting, Created, Gone, Stopping};
        assert!(Created.allows(&Booting) && Booting.allows(&Gone) && Stopping.allows(&Gone) && Created.allows(&Gone));
        for (from, to) in [
            (Gone, Booting),
            (Gone, Created),
            (Stopping, Booting),
            (Created, Stopping),
            (Booting, Created),
        ] {
            assert!(!from.allows(&to), "{} → {}", from.name(), to.name());
        }
    }
}
