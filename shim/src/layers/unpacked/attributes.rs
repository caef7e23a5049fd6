//! Extended attributes of unpacked files: which are the image's, which are overlayfs's way to say something, and which are the host's.

use super::archive::Attribute;
use rustix::{
    fs::{lgetxattr, llistxattr, llistxattr_query},
    io::Errno,
};
use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Longest list of names, and longest value (kernel, include/uapi/linux/limits.h: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LIST_MAX: usize = 64 << 10;
const VALUE_MAX: usize = 64 << 10;

/// Attributes of overlayfs that say nothing of a layer's content: where an upper file came from, and what a mount remembers.
const REMEMBERED: [&[u8]; 6] = [b"origin", b"impure", b"nlink", b"upper", b"uuid", b"protattr"];

/// The attributes of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Those that are the image's, by name.
    pub kept: Vec<Attribute>,
    /// The directory hides what lower layers have in it.
    pub opaque: bool,
}

/// Why attributes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AttributeError {
    /// They cannot be read.
    #[error("its extended attributes cannot be read")]
    Read(#[source] io::Error),
    /// overlayfs keeps a part of the file in another layer, or hides files in a way that tars have no word for.
    #[error("its attribute {0:?} makes it depend on a mount of overlayfs")]
    Overlay(String),
    /// A name that a tar's record cannot hold.
    #[error("the name of its attribute {0:?} cannot be written to a tar")]
    Name(String),
}

/// What an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Image,
    Host,
    Opaque,
    Dependent,
}

/// Reads the attributes of `name` in a directory; `.` is the directory itself. Links are not followed.
pub fn of(directory: BorrowedFd<'_>, name: &[u8], user_xattr: bool) -> Result<Attributes, AttributeError> {
    // The kernel's own link to the directory is followed, the last part of the path is not.
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(OsStr::from_bytes(name));
    let path = if name == b"." { path.join(".") } else { path };
    let mut names = list(&path).map_err(|e| AttributeError::Read(e.into()))?;
    names.sort();
    let mut found = Attributes::default();
    for name in names {
        let shown = || String::from_utf8_lossy(name.as_bytes()).into_owned();
        let value = match value(&path, &name) {
            // Names are listed that nobody may read, and may be removed.
            Err(Errno::NODATA) => continue,
            other => other.map_err(|e| AttributeError::Read(e.into()))?,
        };
        match meaning(name.as_bytes(), &value, user_xattr) {
            Meaning::Host => {}
            Meaning::Opaque => found.opaque = true,
            Meaning::Dependent => return Err(AttributeError::Overlay(shown())),
            Meaning::Image if name.as_bytes().contains(&b'=') => return Err(AttributeError::Name(shown())),
            Meaning::Image => found.kept.push((name.into_bytes(), value)),
        }
    }
    Ok(found)
}

/// Tells the attributes apart. A security module labels the host's files, and a file system has attributes of its own: neither is the
/// image's. Whoever unpacks a layer sets file capabilities, access lists, and what users and root may set.
fn meaning(name: &[u8], value: &[u8], user_xattr: bool) -> Meaning {
    let trusted = name.strip_prefix(b"trusted.overlay.".as_slice());
    let user = name.strip_prefix(b"user.overlay.".as_slice()).filter(|_| user_xattr);
    if let Some(word) = trusted.or(user) {
        return match word {
            b"opaque" if value == b"y" => Meaning::Opaque,
            _ if REMEMBERED.contains(&word) => Meaning::Host,
            _ => Meaning::Dependent,
        };
    }
    let image = name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.");
    if image { Meaning::Image } else { Meaning::Host }
}

fn list(path: &Path) -> Result<Vec<CString>, Errno> {
    // Most files have none.
    match llistxattr_query(path) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut buffer = vec![0; LIST_MAX];
    let length = llistxattr(path, &mut buffer[..])?;
    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    // Split at the zeros, so none is left.
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

fn value(path: &Path, name: &CString) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; VALUE_MAX];
    let length = lgetxattr(path, name.as_c_str(), &mut buffer[..])?;
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_images_is_told_from_the_hosts_and_overlayfss() {
        for (name, value, as_trusted, as_user) in [
            ("security.capability", "x", Meaning::Image, Meaning::Image),
            ("security.selinux", "x", Meaning::Host, Meaning::Host),
            ("security.ima", "x", Meaning::Host, Meaning::Host),
            ("system.posix_acl_access", "x", Meaning::Image, Meaning::Image),
            ("btrfs.compression", "zstd", Meaning::Host, Meaning::Host),
            ("trusted.md5", "x", Meaning::Image, Meaning::Image),
            ("trusted.overlay.opaque", "y", Meaning::Opaque, Meaning::Opaque),
            // Whiteouts that are attributes of files (kernel 6.7).
            ("trusted.overlay.opaque", "x", Meaning::Dependent, Meaning::Dependent),
            ("trusted.overlay.whiteout", "", Meaning::Dependent, Meaning::Dependent),
            ("trusted.overlay.redirect", "/etc", Meaning::Dependent, Meaning::Dependent),
            ("trusted.overlay.metacopy", "", Meaning::Dependent, Meaning::Dependent),
            ("trusted.overlay.origin", "\0", Meaning::Host, Meaning::Host),
            ("user.overlay.opaque", "y", Meaning::Image, Meaning::Opaque),
            ("user.overlay.redirect", "a", Meaning::Image, Meaning::Dependent),
            ("user.mime", "text", Meaning::Image, Meaning::Image),
        ] {
            let of = |user| meaning(name.as_bytes(), value.as_bytes(), user);
            assert_eq!((of(false), of(true)), (as_trusted, as_user), "{name}={value}");
        }
    }
}
