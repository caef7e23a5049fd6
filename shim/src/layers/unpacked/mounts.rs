//! The directories of a container's layers, from the mount of the default snapshotter.

use std::path::PathBuf;

/// What an overlay mount says of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lower {
    /// Their directories, bottom first.
    pub directories: Vec<PathBuf>,
    /// Whether overlayfs keeps its own attributes as `user.overlay.*` (kernel, Documentation/filesystems/overlayfs.rst, "User xattr").
    pub user_xattr: bool,
}

/// Reads the options of an overlay mount, where the topmost layer comes first. containerd escapes nothing in them: a directory with a
/// colon in its name would be two.
pub fn lower<'a>(options: impl IntoIterator<Item = &'a String>) -> Lower {
    let mut lower = Lower {
        directories: Vec::new(),
        user_xattr: false,
    };
    for option in options {
        if let Some(list) = option.strip_prefix("lowerdir=") {
            lower.directories = list.split(':').rev().map(PathBuf::from).collect();
        }
        lower.user_xattr |= option == "userxattr";
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_layer_comes_first_in_a_mount_and_last_here() {
        let root = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let options = [
            "index=off".to_owned(),
            format!("workdir={root}/9/work"),
            format!("upperdir={root}/9/fs"),
            format!("lowerdir={root}/2/fs:{root}/1/fs"),
        ];
        let found = lower(&options);
        assert_eq!(
            found.directories,
            [format!("{root}/1/fs"), format!("{root}/2/fs")].map(PathBuf::from)
        );
        assert!(!found.user_xattr);
        assert!(lower(&["userxattr".to_owned()]).user_xattr);
        assert!(lower(&[]).directories.is_empty());
    }
}
