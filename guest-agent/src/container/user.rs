//! Users and groups of a container, from the files in its root file system.
//!
//! The files are read once, when the container is created, so that a process that edits them later cannot give itself the
//! name that a policy requires for an exec.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use policy::action::IdName;

use crate::decode::User;

/// Longest passwd or group file that is read, in bytes.
const FILE_BYTES: u64 = 1 << 20;
/// umask if a spec has none.
const UMASK: u32 = 0o022;

/// Why a user cannot be identified.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A file exists but cannot be read.
    #[error("the container's {file} cannot be read")]
    File {
        /// The file.
        file: &'static str,
        #[source]
        cause: io::Error,
    },
    /// No entry has the name.
    #[error("the container's files know no such user or group")]
    Unknown,
    /// Two entries have the number.
    #[error("the container's files have two names for user or group {0}")]
    Ambiguous(u32),
}

/// The entries of passwd and group.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UserDatabase {
    users: Vec<(String, u32, u32)>,
    groups: Vec<(String, u32)>,
}

/// The user of a process, as numbers and in the policy's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: IdName,
    /// The primary group first.
    pub groups: Vec<IdName>,
    pub umask: String,
}

impl UserDatabase {
    /// Reads the files below `rootfs`; a missing file has no entries.
    pub fn read(rootfs: &str) -> Result<Self, UserError> {
        let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| UserError::File {
            file: "root file system",
            cause: errno.into(),
        })?;
        let text = |file| read_in_root(&root, file).map_err(|cause| UserError::File { file, cause });
        Ok(Self::parse(&text("etc/passwd")?, &text("etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let fields = line.split(':').collect::<Vec<_>>();
            Some((
                fields.first()?.to_string(),
                fields.get(2)?.parse().ok()?,
                fields.get(3)?.parse().ok()?,
            ))
        });
        let groups = group.lines().filter_map(|line| {
            let fields = line.split(':').collect::<Vec<_>>();
            Some((fields.first()?.to_string(), fields.get(2)?.parse().ok()?))
        });
        Self {
            users: users.collect(),
            groups: groups.collect(),
        }
    }

    /// Resolves a spec's user.
    pub fn identify(&self, user: &User) -> Result<Identity, UserError> {
        let (uid, gid) = if user.username.is_empty() {
            (user.uid, user.gid)
        } else {
            self.by_name(&user.username)?
        };
        let mut groups = vec![self.group(gid)?];
        for &gid in &user.additional_gids {
            groups.push(self.group(gid)?);
        }
        Ok(Identity {
            user: self.user(uid)?,
            groups,
            umask: format!("{:04o}", user.umask.unwrap_or(UMASK)),
        })
    }

    /// `user[:group]`, each a name or a number.
    fn by_name(&self, text: &str) -> Result<(u32, u32), UserError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let entry = match user.parse::<u32>() {
            Ok(uid) => self
                .users
                .iter()
                .find(|(_, id, _)| *id == uid)
                .map_or((uid, 0), |&(_, uid, gid)| (uid, gid)),
            Err(_) => {
                let found = self.users.iter().find(|(name, _, _)| name == user);
                found.map(|&(_, uid, gid)| (uid, gid)).ok_or(UserError::Unknown)?
            }
        };
        let gid = match group {
            None => entry.1,
            Some(group) => match group.parse() {
                Ok(gid) => gid,
                Err(_) => self.groups.iter().find(|(name, _)| name == group).ok_or(UserError::Unknown)?.1,
            },
        };
        Ok((entry.0, gid))
    }

    fn user(&self, uid: u32) -> Result<IdName, UserError> {
        unique(uid, self.users.iter().filter(|(_, id, _)| *id == uid).map(|(name, _, _)| name))
    }

    fn group(&self, gid: u32) -> Result<IdName, UserError> {
        unique(gid, self.groups.iter().filter(|(_, id)| *id == gid).map(|(name, _)| name))
    }
}

/// A number without an entry has an empty name, which no policy that lists names accepts; with two entries, neither name is right.
fn unique<'a>(id: u32, mut names: impl Iterator<Item = &'a String>) -> Result<IdName, UserError> {
    let name = names.next().cloned().unwrap_or_default();
    if names.any(|other| *other != name) {
        Err(UserError::Ambiguous(id))
    } else {
        Ok(IdName::new(id, name))
    }
}

/// Reads a regular file; symbolic links are followed as for a process in the container.
fn read_in_root(root: &impl AsFd, path: &str) -> io::Result<String> {
    // Non-blocking: the image may have a FIFO there.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root, path, how) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:101:102::/:/bin/false\nbroken\ntwin:x:7:7::/:\ntriplet:x:7:7::/:\n";
    const GROUP: &str = "root:x:0:\nredis:x:102:\naudio:x:29:redis\n";

    fn identify(user: User) -> Result<Identity, UserError> {
        UserDatabase::parse(PASSWD, GROUP).identify(&user)
    }

    fn named(username: &str) -> Result<(String, String), UserError> {
        let identity = identify(User {
            username: username.to_owned(),
            ..User::default()
        })?;
        Ok((identity.user.id, identity.groups[0].id.clone()))
    }

    #[test]
    fn numbers_get_their_names() {
        let identity = identify(User {
            uid: 101,
            gid: 102,
            additional_gids: vec![29, 5],
            ..User::default()
        })
        .unwrap();
        assert_eq!(identity.user, IdName::new(101, "redis"));
        assert_eq!(
            identity.groups,
            [IdName::new(102, "redis"), IdName::new(29, "audio"), IdName::new(5, "")]
        );
        assert_eq!(identity.umask, "0022");
        let identity = identify(User {
            umask: Some(0o77),
            ..User::default()
        })
        .unwrap();
        assert_eq!(identity.umask, "0077");
        assert!(matches!(identify(User { uid: 7, ..User::default() }), Err(UserError::Ambiguous(7))));
    }

    #[test]
    fn names_get_their_numbers() {
        let of = |user: &str, group: &str| (user.to_owned(), group.to_owned());
        assert_eq!(named("redis").unwrap(), of("101", "102"));
        assert_eq!(named("redis:audio").unwrap(), of("101", "29"));
        assert_eq!(named("101").unwrap(), of("101", "102"));
        assert_eq!(named("4711:29").unwrap(), of("4711", "29"));
        assert!(matches!(named("nobody"), Err(UserError::Unknown)));
        assert!(matches!(named("redis:nogroup"), Err(UserError::Unknown)));
    }

    #[test]
    fn links_stay_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_str().unwrap();
        assert_eq!(UserDatabase::read(path).unwrap(), UserDatabase::default());
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("usr")).unwrap();
        fs::write(root.path().join("usr/passwd"), PASSWD).unwrap();
        symlink("/../../../usr/passwd", root.path().join("etc/passwd")).unwrap();
        assert_eq!(UserDatabase::read(path).unwrap().users.len(), 4);
        nix::unistd::mkfifo(&root.path().join("etc/group"), Mode::S_IRWXU).unwrap();
        assert!(matches!(UserDatabase::read(path), Err(UserError::File { file: "etc/group", .. })));
    }
}
