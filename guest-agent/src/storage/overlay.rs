//! Root file systems of containers: an overlay of layers and a directory of the scratch.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy::{
    ContainerId, Permit,
    action::{MountOverlay, ScratchMount, UnmountOverlay},
};

use super::{StorageError, rootfs_of};
use crate::guest_dir::{self, Directory};

/// Features of overlayfs that would write more than names and contents into the upper directory.
const OPTIONS: &str = "index=off,metacopy=off,redirect_dir=off,xino=off";
/// Lower directory of a container without layers, because overlayfs needs one.
const NO_LAYERS: &str = "/run/casemate/empty";

/// A mounted root file system.
#[derive(Debug)]
pub struct Overlay {
    /// The slots of its layers.
    pub slots: Vec<u32>,
    /// Directory with its upper and work directories.
    pub scratch: String,
    mounted: bool,
}

/// The root file systems by container.
#[derive(Debug, Default)]
pub struct Overlays {
    by_container: HashMap<ContainerId, Overlay>,
}

impl Overlays {
    /// Whether the container has its root file system.
    pub fn contains(&self, id: &ContainerId) -> bool {
        self.by_container.get(id).is_some_and(|overlay| overlay.mounted)
    }

    /// Mounts the overlay that the permit allows.
    pub fn mount(&mut self, permit: Permit<'_, MountOverlay>, slots: Vec<u32>, scratch: String) -> Result<(), StorageError> {
        let MountOverlay {
            container_id,
            layer_paths,
            target,
        } = permit.action();
        if self.by_container.contains_key(container_id) {
            return Err(StorageError::Occupied(rootfs_of(container_id)));
        }
        let point = Directory::make(target).map_err(StorageError::io("creating a root file system's mount point"))?;
        let upper = Directory::open(&scratch).map_err(StorageError::io("opening a container's scratch directory"))?;
        let data = options(layer_paths, &upper.path());
        if layer_paths.is_empty() {
            fs::create_dir_all(NO_LAYERS).map_err(StorageError::io("creating an empty layer"))?;
        }
        mount(
            Some("overlay"),
            point.path().as_str(),
            Some("overlay"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
        .map_err(StorageError::io("mounting a root file system"))?;
        self.by_container.insert(
            container_id.clone(),
            Overlay {
                slots,
                scratch,
                mounted: true,
            },
        );
        permit.commit();
        Ok(())
    }

    /// Unmounts a root file system; returns it.
    pub fn unmount(&mut self, permit: Permit<'_, UnmountOverlay>, id: &ContainerId) -> Result<Overlay, StorageError> {
        let target = permit.action().unmount_target.clone();
        let overlay = self.by_container.get_mut(id).ok_or_else(|| StorageError::Absent(rootfs_of(id)))?;
        if overlay.mounted {
            unmount_point(&target).map_err(StorageError::io("unmounting a root file system"))?;
            overlay.mounted = false;
        }
        let overlay = self.by_container.remove(id).ok_or_else(|| StorageError::Absent(rootfs_of(id)))?;
        permit.commit();
        Ok(overlay)
    }
}

/// Unmounts what is mounted at `target`, whose parents are real directories.
pub fn unmount_point(target: &str) -> io::Result<()> {
    let (parent, name) = guest_dir::split(target)?;
    let parent = Directory::open(parent)?;
    Ok(umount2(format!("{}/{name}", parent.path()).as_str(), MntFlags::UMOUNT_NOFOLLOW)?)
}

/// Creates the upper and work directories in the permit's directory.
pub fn make_upper(permit: Permit<'_, ScratchMount>) -> Result<(), StorageError> {
    let failed = StorageError::io("creating a container's scratch directory");
    let (parent, name) = guest_dir::split(&permit.action().target).map_err(failed)?;
    let parent = Directory::make(parent).map_err(StorageError::io("creating the scratch directory"))?;
    // Must not exist, so that it contains nothing of an earlier container.
    let made = parent
        .make_new(name, 0o700)
        .map_err(StorageError::io("creating a container's scratch directory"))?;
    let inner = ["upper", "work"]
        .into_iter()
        .try_for_each(|inner| made.make_new(inner, 0o755).map(drop));
    if let Err(cause) = inner {
        return Err(match parent.remove_all(name) {
            Ok(()) => StorageError::io("creating a container's upper directory")(cause),
            Err(_) => StorageError::NotUndone,
        });
    }
    permit.commit();
    Ok(())
}

/// Removes what a container wrote.
pub fn remove_upper(directory: &str) -> Result<(), StorageError> {
    let removed = guest_dir::split(directory).and_then(|(parent, name)| Directory::open(parent)?.remove_all(name));
    removed.map_err(StorageError::io("removing a container's scratch directory"))
}

/// Top layer first, in the policy and for overlayfs alike. `scratch` is the directory with upper and work directory. The agent chose
/// the paths, which contain no `:` or `,`.
///
/// overlayfs refuses a directory that occurs twice, and images may contain the empty layer twice. Only the upper one is kept:
/// whatever the lower one shows or hides, its equal above shows and hides as well.
fn options(layers: &[String], scratch: &str) -> String {
    let mut seen = HashSet::new();
    let distinct = layers
        .iter()
        .map(String::as_str)
        .filter(|layer| seen.insert(*layer))
        .collect::<Vec<_>>();
    let lower = if distinct.is_empty() {
        NO_LAYERS.to_owned()
    } else {
        distinct.join(":")
    };
    format!("lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work,{OPTIONS}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::limits::{LAYERS, OVERLAY_LAYERS};

    #[test]
    fn layers_keep_their_order() {
        let layers = ["/run/mounts/scsi/m1".to_owned(), "/run/mounts/scsi/m0".to_owned()];
        assert_eq!(
            options(&layers, "/run/gcs/c/a/scratch/b"),
            "lowerdir=/run/mounts/scsi/m1:/run/mounts/scsi/m0,upperdir=/run/gcs/c/a/scratch/b/upper,\
             workdir=/run/gcs/c/a/scratch/b/work,index=off,metacopy=off,redirect_dir=off,xino=off"
        );
    }

    #[test]
    fn of_a_repeated_layer_the_upper_one_is_kept() {
        let layers = ["a", "b", "a", "c"].map(str::to_owned);
        assert!(options(&layers, "/s").starts_with("lowerdir=a:b:c,"));
    }

    #[test]
    fn the_options_for_the_most_layers_fit_in_a_page() {
        let id = ContainerId::new("a");
        let layers = (0..OVERLAY_LAYERS)
            .map(|n| crate::paths::layer((LAYERS - n) as u32))
            .collect::<Vec<_>>();
        assert!(options(&layers, &crate::paths::scratch(&id, &id)).len() < 4096);
    }
}
