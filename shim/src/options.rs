//! Runtime options that containerd passes on from its client: those of them that this runtime takes.

use protobuf::{CodedInputStream, well_known_types::any::Any};
use std::path::PathBuf;

/// Options as containerd's `ctr --runtime-config-path` and CRI send them.
const GENERIC: &str = "runtimeoptions.v1.Options";
/// Options of runc's shim, which clients of containerd 2 send to any runtime.
const RUNC: &str = "containerd.runc.v1.Options";
/// What clients of containerd 1.x send to a runtime other than runc.
const CREATE: &str = "containerd.linux.runc.CreateOptions";

/// Number of `config_path` in [`GENERIC`].
const CONFIG_PATH: u32 = 2;
/// Number of `shim_cgroup` in [`RUNC`].
const RUNC_SHIM_CGROUP: u32 = 3;
/// Number of `shim_cgroup` in [`CREATE`].
const CREATE_SHIM_CGROUP: u32 = 9;

/// The options of one sandbox. Others of runc's concern runc.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The configuration to use instead of the node's.
    pub config_path: Option<PathBuf>,
    /// The cgroup that the shim is put into, from the root of its hierarchy.
    pub shim_cgroup: Option<String>,
}

impl Options {
    /// Reads options of any type; of an unknown type there are none.
    pub fn of(any: &Any) -> Self {
        let text = |field| string(&any.value, field);
        match any.type_url.rsplit('/').next() {
            Some(GENERIC) => Self {
                config_path: text(CONFIG_PATH).map(PathBuf::from),
                shim_cgroup: None,
            },
            Some(RUNC) => Self {
                config_path: None,
                shim_cgroup: text(RUNC_SHIM_CGROUP),
            },
            Some(CREATE) => Self {
                config_path: None,
                shim_cgroup: text(CREATE_SHIM_CGROUP),
            },
            _ => Self::default(),
        }
    }
}

/// The text of a field; `None` where it is absent or empty.
fn string(message: &[u8], field: u32) -> Option<String> {
    let mut input = CodedInputStream::from_bytes(message);
    while let Ok(Some(tag)) = input.read_raw_tag_or_eof() {
        // Length-delimited (protobuf encoding: number << 3 | 2).
        if tag == field << 3 | 2 {
            return input.read_string().ok().filter(|text| !text.is_empty());
        }
        protobuf::rt::skip_field_for_tag(tag, &mut input).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(type_url: &str, value: &[u8]) -> Options {
        Options::of(&Any {
            type_url: type_url.to_owned(),
            value: value.to_vec(),
            ..Default::default()
        })
    }

    #[test]
    fn runtime_options_may_name_the_configuration() {
        // type_url = "x" (field 1), config_path = "/c" (field 2), as protobuf.
        let value = b"\x0a\x01x\x12\x02/c";
        assert_eq!(options(GENERIC, value).config_path, Some("/c".into()));
        assert_eq!(
            options("type.googleapis.com/runtimeoptions.v1.Options", value).config_path,
            Some("/c".into())
        );
        assert_eq!(options(RUNC, value), Options::default());
        assert_eq!(options(GENERIC, b"\x12\x00"), Options::default());
        assert_eq!(options(GENERIC, b"\x12\xff"), Options::default());
        assert_eq!(options("", b""), Options::default());
    }

    #[test]
    fn runtime_options_may_name_the_shims_cgroup() {
        // no_pivot_root = true (field 1), shim_cgroup = "/a" (field 3 of one type, field 9 of the other).
        assert_eq!(options(RUNC, b"\x08\x01\x1a\x02/a").shim_cgroup.as_deref(), Some("/a"));
        assert_eq!(options(CREATE, b"\x08\x01\x4a\x02/a").shim_cgroup.as_deref(), Some("/a"));
        assert_eq!(options(CREATE, b"\x1a\x02/a"), Options::default());
    }
}
