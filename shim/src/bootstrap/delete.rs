//! `delete`: a separate process that removes what a dead shim left; containerd gives it five seconds.

use super::{Args, BootstrapError, address::Address};
use crate::{
    bundle::{Bundle, Group, Role, noted_state},
    config::Config,
    vm::{KILLED, remove_cgroups},
};
use containerd_shim_protos::api::DeleteResponse;
use protobuf::{Message, well_known_types::timestamp::Timestamp};
use shim_state::{OwnedSandboxDir, Record, SandboxDir};
use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// A killed VMM must have exited within this time; leaves room within containerd's five seconds.
const VMM_GONE: Duration = Duration::from_secs(3);

/// Runs the action.
///
/// # Errors
/// See [`BootstrapError`].
pub fn delete(args: &Args) -> Result<(), BootstrapError> {
    let bundle = args.bundle_dir()?;
    // A bundle that was partly removed must not stop the clean-up: then the container counts as its own sandbox.
    let group = Bundle::read(&bundle).map(|b| b.group(&args.id)).unwrap_or(Group {
        id: args.id.clone(),
        role: Role::Sandbox,
    });
    let pid = clean_up(args, &bundle, &group)?;
    if let Some(address) = Address::read(&bundle) {
        address.remove_dead();
    }
    let response = DeleteResponse {
        pid,
        exit_status: KILLED,
        exited_at: Some(Timestamp::now()).into(),
        ..Default::default()
    };
    let bytes = response.write_to_bytes().map_err(BootstrapError::Encode)?;
    io::stdout()
        .write_all(&bytes)
        .map_err(|e| BootstrapError::Io("print the exit status", e))
}

/// Ends the VM and removes its state directory; returns the VMM's process id, 0 when there was none.
fn clean_up(args: &Args, bundle: &Path, group: &Group) -> Result<u32, BootstrapError> {
    Args::check_group(&group.id)?;
    let own = Path::new(&args.namespace).join(&group.id);
    // Any other path is not this sandbox's, and must not be removed.
    let path = match noted_state(bundle).filter(|path| path.ends_with(&own)) {
        Some(path) => path,
        // Nothing was booted for this bundle, or it was partly removed: the configured root is the best guess.
        None => SandboxDir::path_below(&Config::load_default()?.state_dir, &args.namespace, &group.id),
    };
    let Some(record) = Record::load(&path)? else {
        // The shim of the other containers may be about to boot and record their VM.
        if group.role != Role::Sandbox && Address::read(bundle).is_some_and(|address| address.answers()) {
            return Ok(0);
        }
        // A VMM that was never recorded was never sent its spec: it ended with its shim, and had no cgroup.
        OwnedSandboxDir::remove_at(&path)?;
        return Ok(0);
    };
    // containerd may ask for one member while the shim still serves the others.
    let others_live = group.role != Role::Sandbox && record.shim.is_alive();
    if !others_live {
        record.vmm.kill_and_wait(VMM_GONE);
        remove_cgroups(&record);
        OwnedSandboxDir::remove_at(&path)?;
    }
    Ok(record.vmm.pid)
}
