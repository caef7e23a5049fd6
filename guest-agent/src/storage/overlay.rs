//! Root file systems of containers: an overlay of layers and a directory of the scratch, or the guest's own for its pause program.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy::{
    ContainerId, Permit,
    action::{MountOverlay, ScratchMount, UnmountOverlay},
};

use super::{StorageError, rootfs_of};
use crate::{
    container::pause,
    guest_dir::{self, Directory},
    paths,
};

/// Features of overlayfs that would write more than names and contents into the upper directory.
const OPTIONS: &str = "index=off,metacopy=off,redirect_dir=off,xino=off";
/// Directories of the guest's own root file system, on which the launcher mounts.
const MOUNT_POINTS: [&str; 4] = ["proc", "dev", "sys", "etc"];

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

    /// Whether the container's root file system is the guest's own.
    pub fn is_own(&self, id: &ContainerId) -> bool {
        self.by_container.get(id).is_some_and(|overlay| overlay.slots.is_empty())
    }

    /// Mounts the overlay that the permit allows; the guest's own root file system if it has no layers.
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
        if layer_paths.is_empty() {
            mount_own(&point, target, Path::new(paths::PAUSE))?;
        } else {
            mount(
                Some("overlay"),
                point.path().as_str(),
                Some("overlay"),
                MsFlags::empty(),
                Some(options(layer_paths, &upper.path()).as_str()),
            )
            .map_err(StorageError::io("mounting a root file system"))?;
        }
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

/// Mounts the guest's own root file system, which nothing can write to, at `point`, whose path is `target`.
fn mount_own(point: &Directory, target: &str, program: &Path) -> Result<(), StorageError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("mode=0755,size=1m,nr_inodes=16");
    mount(Some("pause"), point.path().as_str(), Some("tmpfs"), flags, options)
        .map_err(StorageError::io("mounting the guest's own root file system"))?;
    let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    // Opened again: `point` is the directory below the mount.
    let filled = Directory::open(target).and_then(|root| {
        fill(Path::new(&root.path()), program)?;
        Ok(mount(None::<&str>, root.path().as_str(), None::<&str>, read_only, options)?)
    });
    filled.map_err(|cause| match unmount_point(target) {
        Ok(()) => StorageError::io("filling the guest's own root file system")(cause),
        Err(_) => StorageError::NotUndone,
    })
}

fn fill(root: &Path, program: &Path) -> io::Result<()> {
    for name in MOUNT_POINTS {
        fs::create_dir(root.join(name))?;
    }
    let copy = root.join(pause::PROGRAM.trim_start_matches('/'));
    fs::copy(program, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o555))
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
    format!(
        "lowerdir={},upperdir={scratch}/upper,workdir={scratch}/work,{OPTIONS}",
        distinct.join(":")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::limits::{LAYERS, OVERLAY_LAYERS};
    use nix::sched::{CloneFlags, unshare};
    use std::thread;

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
        let layers = (0..OVERLAY_LAYERS).map(|n| paths::layer((LAYERS - n) as u32)).collect::<Vec<_>>();
        assert!(options(&layers, &paths::scratch(&id, &id)).len() < 4096);
    }

    #[test]
    fn the_guests_own_root_file_system_has_the_program_and_cannot_change() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: the_guests_own_root_file_system_has_the_program_and_cannot_change: this test needs root");
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let test = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let (target, program) = (format!("{}/rootfs", base.display()), base.join("program"));
            fs::write(&program, "x").unwrap();
            let point = Directory::make(&target).unwrap();
            assert!(mount_own(&point, &target, &base.join("missing")).is_err());
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "nothing is left");
            mount_own(&point, &target, &program).unwrap();
            let mode = fs::metadata(format!("{target}/pause")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o555);
            assert!(MOUNT_POINTS.iter().all(|name| Path::new(&target).join(name).is_dir()));
            let refused = fs::write(format!("{target}/etc/passwd"), "x").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
            unmount_point(&target).unwrap();
            assert!(!Path::new(&target).join("pause").exists());
        };
        thread::spawn(test).join().unwrap();
    }
}
