//! Users and groups by the files of a root file system, for tools that write policies or requests.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use policy::action::IdName;
use thiserror::Error;

/// Longest passwd or group file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The default umask.
pub const DEFAULT_UMASK: &str = "0022";

/// Why a user cannot be identified.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// A file exists but cannot be read.
    #[error("cannot read {file} of the root file system")]
    Read {
        /// The file.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no entry of this name.
    #[error("no user or group is called {0:?}")]
    Unknown(String),
}

/// A user in the form of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id and name; the name is empty if there is no entry of this id.
    pub user: IdName,
    /// The primary group, then the groups that list the user.
    pub groups: Vec<IdName>,
    /// Four octal digits.
    pub umask: String,
}

/// Looks up `user`, which is an image's USER: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
///
/// Links do not lead out of the root file system.
///
/// # Errors
/// A file cannot be read, or has no entry of that name.
pub fn identify(rootfs: &Path, user: &str) -> Result<Identity, RootfsError> {
    let passwd = read(rootfs, "etc/passwd")?;
    let group = read(rootfs, "etc/group")?;
    let users: Vec<(&str, u32, u32)> = passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            Some((*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        })
        .collect();
    let groups: Vec<(&str, u32, &str)> = group
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            Some((
                *fields.first()?,
                fields.get(2)?.parse().ok()?,
                fields.get(3).copied().unwrap_or_default(),
            ))
        })
        .collect();
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let entry = match user.parse::<u32>() {
        Ok(id) => users.iter().find(|(_, uid, _)| *uid == id).copied().unwrap_or(("", id, 0)),
        Err(_) => *users
            .iter()
            .find(|(name, ..)| *name == user)
            .ok_or_else(|| RootfsError::Unknown(user.to_owned()))?,
    };
    let (name, uid, primary) = entry;
    let primary = match group.map(|group| (group, group.parse::<u32>())) {
        None => primary,
        Some((_, Ok(gid))) => gid,
        Some((name, Err(_))) => {
            groups
                .iter()
                .find(|(known, ..)| *known == name)
                .ok_or_else(|| RootfsError::Unknown(name.to_owned()))?
                .1
        }
    };
    let group_name = |gid: u32| groups.iter().find(|(_, known, _)| *known == gid).map_or("", |(name, ..)| *name);
    let mut found = vec![IdName::new(primary, group_name(primary))];
    if group.is_none() && !name.is_empty() {
        let members = groups
            .iter()
            .filter(|(_, gid, members)| *gid != primary && members.split(',').any(|member| member == name));
        found.extend(members.map(|(group, gid, _)| IdName::new(*gid, *group)));
    }
    Ok(Identity {
        user: IdName::new(uid, name),
        groups: found,
        umask: DEFAULT_UMASK.to_owned(),
    })
}

/// A file below `rootfs`; a missing one is empty.
fn read(rootfs: &Path, file: &'static str) -> Result<String, RootfsError> {
    let error = |errno: Errno| RootfsError::Read {
        file,
        source: errno.into(),
    };
    let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(error)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let descriptor = match openat2(root.as_fd(), file, how) {
        Ok(descriptor) => descriptor,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(error(errno)),
    };
    let mut text = String::new();
    File::from(descriptor)
        .take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(|source| RootfsError::Read { file, source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(
            directory.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:50::/:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(directory.path().join("etc/group"), "root:x:0:\nstaff:x:50:\nmedia:x:60:app,root\n").unwrap();
        directory
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let rootfs = rootfs();
        let app = identify(rootfs.path(), "app").unwrap();
        assert_eq!((app.user, app.umask.as_str()), (IdName::new(1000, "app"), "0022"));
        assert_eq!(app.groups, [IdName::new(50, "staff"), IdName::new(60, "media")]);
        assert_eq!(identify(rootfs.path(), "1000:media").unwrap().groups, [IdName::new(60, "media")]);
        assert_eq!(identify(rootfs.path(), "7:8").unwrap().user, IdName::new(7, ""));
        assert_eq!(identify(rootfs.path(), "").unwrap().user, IdName::new(0, "root"));
        let media = identify(rootfs.path(), "app:media").unwrap();
        assert_eq!(
            (media.user, media.groups),
            (IdName::new(1000, "app"), vec![IdName::new(60, "media")])
        );
        for (user, missing) in [("nobody", "nobody"), ("app:nogroup", "nogroup"), ("nobody:media", "nobody")] {
            let error = identify(rootfs.path(), user).unwrap_err();
            assert_eq!(error.to_string(), format!("no user or group is called {missing:?}"));
        }
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let (rootfs, outside) = (rootfs(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("passwd");
        std::fs::write(&secret, "spy:x:4:4::/:\n").unwrap();
        let passwd = rootfs.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink(&secret, &passwd).unwrap();
        assert!(matches!(identify(rootfs.path(), "spy"), Err(RootfsError::Unknown(_))));
    }
}
