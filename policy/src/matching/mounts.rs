//! Matching of mounts against those that containers of a policy allow.

use regorus::Value;

use super::{field, filtered, members, text};
use crate::re2::Patterns;

/// Directories of prefixed sources, and the mounts of privileged containers: `mount_places` in `framework/mounts.rego`.
struct Places<'v> {
    /// Prefix of a policy's source, and the directory that replaces it.
    directories: Vec<(&'v str, &'v str)>,
    plan9_prefix: Option<&'v str>,
    /// Owner of each shared directory.
    shared: Option<&'v Value>,
    container: Option<&'v Value>,
    privileged: Vec<&'v Value>,
}

impl<'v> Places<'v> {
    fn new(places: &'v Value) -> Self {
        let get = |key: &str| field(places, &Value::from(key));
        let directory = |prefix, directory| Some((text(get(prefix))?, text(get(directory))?));
        Self {
            directories: [
                directory("sandbox_prefix", "sandbox_dir"),
                directory("huge_pages_prefix", "huge_pages_dir"),
            ]
            .into_iter()
            .flatten()
            .collect(),
            plan9_prefix: text(get("plan9_prefix")),
            shared: get("shared"),
            container: get("container"),
            privileged: get("privileged").and_then(members).unwrap_or_default(),
        }
    }

    /// Whether a mount of the policy allows the requested one: same type, destination and options, and a matching source.
    fn fits(&self, patterns: &mut Patterns, allowed: &Value, mount: &Value) -> bool {
        let same = |key: &str| {
            let key = Value::from(key);
            field(mount, &key).is_some() && field(mount, &key) == field(allowed, &key)
        };
        let options = Value::from("options");
        let destination = text(field(mount, &Value::from("destination")));
        same("type")
            && destination.is_some_and(|destination| !destination.is_empty())
            && same("destination")
            && same_members(field(mount, &options), field(allowed, &options))
            && self.source_fits(patterns, allowed, mount)
    }

    fn source_fits(&self, patterns: &mut Patterns, allowed: &Value, mount: &Value) -> bool {
        let key = Value::from("source");
        let (Some(allowed), Some(source)) = (text(field(allowed, &key)), text(field(mount, &key))) else {
            return false;
        };
        let in_directory = self.directories.iter().any(|(prefix, directory)| {
            allowed.starts_with(prefix)
                && patterns
                    .is_match(&allowed.replace(prefix, directory), source, true)
                    .unwrap_or(false)
        });
        let owned = || {
            self.plan9_prefix.is_some_and(|prefix| allowed.starts_with(prefix))
                && self.container.is_some()
                && self.shared.and_then(|shared| field(shared, &Value::from(source))) == self.container
        };
        allowed == source || in_directory || owned()
    }

    /// Whether a container of the policy allows the mount.
    fn allowed(&self, patterns: &mut Patterns, container: &Value, mount: &Value) -> bool {
        let own = field(container, &Value::from("mounts")).and_then(members).unwrap_or_default();
        let elevated = !matches!(field(container, &Value::from("allow_elevated")), None | Some(Value::Bool(false)));
        own.iter().any(|allowed| self.fits(patterns, allowed, mount))
            || (elevated && self.privileged.iter().any(|allowed| self.fits(patterns, allowed, mount)))
    }
}

/// Whether two lists have the same length and members, in any order.
fn same_members(one: Option<&Value>, other: Option<&Value>) -> bool {
    let (Some(Value::Array(one)), Some(Value::Array(other))) = (one, other) else {
        return false;
    };
    one.len() == other.len() && one.iter().all(|member| other.contains(member)) && other.iter().all(|member| one.contains(member))
}

/// Containers that allow every one of the mounts.
pub(super) fn fitting(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [containers, mounts, places] = arguments else { return None };
    let (mounts, places) = (members(mounts)?, Places::new(places));
    filtered(containers, |container| {
        mounts.iter().all(|mount| places.allowed(patterns, container, mount))
    })
}

/// Mounts that no container allows.
pub(super) fn refused(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [containers, mounts, places] = arguments else { return None };
    let (containers, places) = (members(containers)?, Places::new(places));
    filtered(mounts, |mount| {
        !containers.iter().any(|container| places.allowed(patterns, container, mount))
    })
}
