//! `delete`: a fresh process that removes what a dead shim left; containerd gives it five seconds.

use super::{Args, BootstrapError, address::Address};
use crate::{
    bundle::{Bundle, Group, Role, noted_state},
    config::Config,
    vm::{KILLED, Record, StateDir, orphan},
};
use containerd_shim_protos::api::DeleteResponse;
use protobuf::{Message, well_known_types::timestamp::Timestamp};
use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// How long a killed VMM may take to disappear; leaves room within containerd's five seconds.
const VMM_GONE: Duration = Duration::from_secs(3);

/// Runs the action.
///
/// # Errors
/// See [`BootstrapError`].
pub fn delete(args: &Args) -> Result<(), BootstrapError> {
    let bundle = args.bundle_dir()?;
    // A bundle that is half gone must not stop the clean-up: then the container was its own group.
    let group = Bundle::read(&bundle).map(|b| b.group(&args.id)).unwrap_or(Group {
        id: args.id.clone(),
        role: Role::Alone,
    });
    let pid = clean_up(args, &bundle, &group)?;
    remove_dead_socket(&bundle);
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

/// Ends the VM and removes its directory; gives the VMM's process id, 0 when there was none.
fn clean_up(args: &Args, bundle: &Path, group: &Group) -> Result<u32, BootstrapError> {
    Args::check_group(&group.id)?;
    let own = Path::new(&args.namespace).join(&group.id);
    // A note that names something else would have that removed.
    let path = match noted_state(bundle).filter(|path| path.ends_with(&own)) {
        Some(path) => path,
        // Nothing was booted for this bundle, or it is half gone: the place where most sandboxes are.
        None => StateDir::path(&Config::load_default()?.state_dir, &args.namespace, &group.id),
    };
    let Some(record) = Record::load(&path)? else {
        // The others' shim may be about to boot and record their VM.
        if group.id != args.id && Address::read(bundle).is_some_and(|address| address.answers()) {
            return Ok(0);
        }
        let cgroups_path = Bundle::read(bundle).map(|bundle| bundle.cgroups_path().to_owned());
        orphan::end(&path, &cgroups_path.unwrap_or_default(), VMM_GONE);
        StateDir::remove_leftovers(&path)?;
        return Ok(0);
    };
    // containerd may ask for one member while the shim still serves the others.
    let others_live = group.id != args.id && record.shim.is_alive();
    if !others_live {
        record.vmm.kill_and_wait(VMM_GONE);
        record.remove_cgroups();
        StateDir::remove_leftovers(&path)?;
    }
    Ok(record.vmm.pid)
}

fn remove_dead_socket(bundle: &Path) {
    if let Some(address) = Address::read(bundle)
        && !address.answers()
    {
        address.unlink();
    }
}
