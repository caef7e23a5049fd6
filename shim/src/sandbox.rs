//! The one VM of a shim and what is mounted in it.
//!
//! ```text
//!              boot()            agent answers, policy set
//!   Created ──────────► Booting ────────────────────────────► Ready
//!                          │ boot fails                         │ stop(), last container deleted, VMM ends
//!                          ▼                                    ▼
//!                        Gone ◄───────────────────────────── Stopping
//! ```
//! The phase is read by anybody at any time; the lock that orders boot, stop and mounts is held through slow work
//! and is taken by creation and deletion only, so that State, Connect, Pids and Shutdown never wait for a boot.

mod rootfs;

use crate::{
    bundle::Bundle,
    config::Config,
    error::Error,
    fragments,
    layers::{self, CachedLayer},
    policy_text::PolicyText,
    vm::{BootRequest, References, StateDir, Vm, VmError},
};
use agent_protocol::{LoadFragmentRequest, MountScratchRequest, SetPolicyRequest};
use nix::sys::statvfs::statvfs;
use rootfs::Mounted;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
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

/// The error that a caller is told: where nobody answered because the VM ended, how that ended.
pub async fn explain(vm: &Vm, error: Error) -> Error {
    let Some(doing) = error.unanswered() else {
        return error;
    };
    match vm.end().await {
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

    /// Whether `next` may follow: the drawing above, as a table.
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

/// The sandbox that this shim owns.
pub struct Sandbox {
    namespace: String,
    id: String,
    containerd: String,
    phase: Mutex<Phase>,
    /// Orders boot, stop and mounts.
    mounted: tokio::sync::Mutex<Mounted>,
}

/// A container whose root file system is mounted in the guest.
pub struct Rootfs {
    /// The VM it is in.
    pub vm: Arc<Vm>,
    /// Root hashes of its layers, to be given back.
    pub layers: Vec<[u8; 32]>,
}

impl Sandbox {
    /// A sandbox that has not booted; `containerd` is the address of its gRPC socket.
    pub fn new(namespace: String, id: String, containerd: String) -> Self {
        Self {
            namespace,
            id,
            containerd,
            phase: Mutex::new(Phase::Created),
            mounted: tokio::sync::Mutex::default(),
        }
    }

    /// A sandbox whose VM was booted without an image.
    #[cfg(test)]
    pub fn booted(id: &str, vm: Arc<Vm>) -> Self {
        let sandbox = Self::new("ns".into(), id.into(), String::new());
        assert!(sandbox.enter(Phase::Booting) && sandbox.enter(Phase::Ready(vm)));
        sandbox
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its directory is.
    pub fn state_path(&self, config: &Config) -> PathBuf {
        StateDir::path(&config.state_dir, &self.namespace, &self.id)
    }

    /// Boots the VM if this is the first container, converts the image's layers meanwhile, and mounts the
    /// container's root file system.
    ///
    /// # Errors
    /// Whatever failed first; the layers of this container are unmounted again.
    pub async fn prepare(&self, container: &str, bundle: &Bundle, config: Config) -> Result<Rootfs, Error> {
        let layers = async {
            let found = layers::of_container(&self.containerd, &self.namespace, container, &config.cache_dir).await;
            crate::phase::reached("layers");
            found.map_err(Error::from)
        };
        // Both at once: whichever fails first ends the other.
        let (vm, layers) = tokio::try_join!(self.boot(bundle, &config), layers)?;
        crate::phase::reached("sandbox");
        let mounted = self.mount(&vm, container, layers).await?;
        crate::phase::reached("rootfs");
        Ok(Rootfs { vm, layers: mounted })
    }

    /// Ends a container's root file system; errors are logged, the container is gone for the host either way.
    pub async fn release(&self, container: &str, rootfs: &Rootfs) {
        let mut mounted = self.mounted.lock().await;
        if !rootfs.vm.has_ended() {
            mounted.unmount(&rootfs.vm, container, &rootfs.layers).await;
        }
    }

    /// Powers the guest off and forgets the VM.
    pub async fn stop(&self) {
        let _order = self.mounted.lock().await;
        if let Some(vm) = self.leave() {
            if !vm.has_ended() {
                vm.power_off().await;
            }
            vm.forget();
            self.enter(Phase::Gone);
        }
    }

    /// Ends the VM at once: nothing in it is worth keeping.
    pub async fn discard(&self) {
        if let Some(vm) = self.current() {
            vm.kill();
        }
        let _order = self.mounted.lock().await;
        if let Some(vm) = self.leave() {
            vm.kill_and_wait().await;
            vm.forget();
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

    async fn boot(&self, bundle: &Bundle, config: &Config) -> Result<Arc<Vm>, Error> {
        let _order = self.mounted.lock().await;
        if let Some(vm) = self.current() {
            return if vm.has_ended() {
                Err(Error::Sandbox(Phase::Gone.name()))
            } else {
                Ok(vm)
            };
        }
        let policy = PolicyText::choose(bundle.annotations(), config)?;
        let fragments = fragments::requests(bundle.annotations())?;
        let references = References::read(&config.image_dir).map_err(VmError::from)?;
        let booting = Attempt::begin(self)?;
        let request = BootRequest {
            namespace: &self.namespace,
            id: &self.id,
            config,
            policy: &policy,
            cgroups_path: bundle.cgroups_path(),
        };
        let started = std::time::Instant::now();
        let vm = Vm::boot(request).await?;
        log::info!("agent of sandbox {} answers after {:?}", self.id, started.elapsed());
        if let Err(error) = self.open(&vm, config, policy, references, &fragments).await {
            return Err(explain(&vm, error).await);
        }
        let vm = Arc::new(vm);
        booting.succeed(vm.clone());
        Ok(vm)
    }

    /// Gives a guest what it wants before its first container: the policy, its fragments, the scratch disk.
    async fn open(
        &self,
        vm: &Vm,
        config: &Config,
        policy: PolicyText,
        references: References,
        fragments: &[LoadFragmentRequest],
    ) -> Result<(), Error> {
        let set = SetPolicyRequest {
            policy: policy.text,
            reference_info: references.plain,
            transparent_reference_info: references.transparent,
            ..Default::default()
        };
        vm.agent()
            .set_policy(agent_call(), &set)
            .await
            .map_err(Error::agent("set the policy"))?;
        for (n, fragment) in fragments.iter().enumerate() {
            let loaded = vm.agent().load_fragment(agent_call(), fragment).await;
            loaded.map_err(Error::agent(format!("load fragment {}", n + 1)))?;
        }
        let scratch = MountScratchRequest {
            sandbox_id: self.id.clone(),
            encrypted: true,
            ..Default::default()
        };
        vm.agent()
            .mount_scratch(agent_call(), &scratch)
            .await
            .map_err(|answer| scratch_failed(config, answer))?;
        Ok(())
    }

    async fn mount(&self, vm: &Vm, container: &str, layers: Vec<CachedLayer>) -> Result<Vec<[u8; 32]>, Error> {
        let mut mounted = self.mounted.lock().await;
        match mounted.mount(vm, &self.id, container, layers).await {
            Ok(layers) => Ok(layers),
            Err(error) => Err(explain(vm, error).await),
        }
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        // Only whole values are ever assigned, so what a panicking thread left is sound.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to `next` if the drawing allows it.
    fn enter(&self, next: Phase) -> bool {
        let mut phase = self.phase();
        let allowed = phase.allows(&next);
        if allowed {
            log::debug!("sandbox {}: {} → {}", self.id, phase.name(), next.name());
            *phase = next;
        }
        allowed
    }

    /// Ready → Stopping; gives the VM.
    fn leave(&self) -> Option<Arc<Vm>> {
        let vm = self.current()?;
        self.enter(Phase::Stopping).then_some(vm)
    }
}

/// Why the guest has no scratch disk. Only the host sees that the disk's file cannot grow.
fn scratch_failed(config: &Config, answer: ttrpc::Error) -> Error {
    let free = statvfs(&config.cache_dir).map(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
    match free {
        Ok(bytes) if bytes < FULL => Error::ScratchFull {
            directory: config.cache_dir.clone(),
            source: answer,
        },
        _ => Error::agent("mount the scratch disk")(answer),
    }
}

/// A boot under way. Dropped without success, also when its caller gave up, it leaves the sandbox gone.
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
    fn a_boot_that_fails_ends_the_sandbox_for_good() {
        let sandbox = Sandbox::new("ns".into(), "web".into(), "/nowhere".into());
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
        let sandbox = Sandbox::new("ns".into(), "web".into(), "/nowhere".into());
        let _first = Attempt::begin(&sandbox).unwrap();
        assert!(matches!(Attempt::begin(&sandbox), Err(Error::Sandbox("booting"))));
    }

    #[test]
    fn only_drawn_arrows_exist() {
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
