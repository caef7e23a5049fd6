//! From a configuration a person writes (TOML) to the policy text a guest is started with.
//!
//! ```text
//! Config::from_toml ─► sources: OCI layout, layer files or given hashes ─► containers, defaults filled in ─► marshal ─► policy text
//! ```
//! The text allows exactly the containers of the configuration: their layers, command, environment, user, mounts,
//! capabilities, exec processes and signals, and the pod's pause container. Its digest ([`policy::digest`]) is what
//! host data must hold.
//!
//! ```toml
//! [[container]]
//! image = "images/redis"            # an OCI layout directory, beside this file
//! command = ["redis-server"]        # default: the image's ENTRYPOINT and CMD
//! allow_stdio_access = true
//! signals = [9, 15]
//!
//! [[container.env_rule]]
//! strategy = "re2"                  # or "string"
//! rule = "NONCE=[0-9a-f]{1,64}"
//! required = false
//!
//! [[container.exec_process]]
//! command = ["redis-cli", "ping"]
//! signals = [9, 15]
//! ```

#![forbid(unsafe_code)]

mod config;
mod container;
mod marshal;
mod source;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use config::{Auth, Capabilities, Config, Container, EnvRule, ExecProcess, ExternalProcess, Fragment, IdName, Mount, Strategy, User};

/// Largest configuration in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Why no policy could be made.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration is not TOML of the documented keys.
    #[error("the configuration is not valid")]
    Config(#[from] toml::de::Error),
    /// A container or process has a field that cannot be used.
    #[error("{place}: {problem}")]
    Field {
        /// Which container or process.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// `allow_all` beside containers says two different things.
    #[error("Invalid policy for open-door enforcer: allow_all leaves no room for containers")]
    OpenDoor,
    /// An image cannot be read.
    #[error("{place}: cannot read image")]
    Image {
        /// Which container.
        place: String,
        /// Why.
        #[source]
        source: registry::LayoutError,
    },
    /// A layer cannot be converted.
    #[error("cannot hash layer {}", path.display())]
    Layer {
        /// The layer's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: layer::ConvertError,
    },
    /// A layer is not the one that the image names.
    #[error("layer {} does not have the diff id of its image", path.display())]
    DiffId {
        /// The layer's file.
        path: PathBuf,
    },
    /// The seccomp profile is none.
    #[error("{place}: seccomp profile is not valid")]
    Seccomp {
        /// Which container.
        place: String,
        /// Why.
        #[source]
        source: policy::SeccompError,
    },
    /// The result is not a policy; a value of the configuration broke it.
    #[error("the generated policy does not load")]
    Policy(#[from] policy::PolicyError),
}

/// Makes the policy text of a configuration. Paths in it are relative to `base_dir`.
///
/// # Errors
/// A source cannot be read, a field cannot be used, or the result would not load.
pub fn generate(config: &Config, base_dir: &Path) -> Result<String, GenerateError> {
    if config.allow_all {
        if !config.container.is_empty() || !config.external_process.is_empty() || !config.fragment.is_empty() {
            return Err(GenerateError::OpenDoor);
        }
        return Ok(policy::OPEN_DOOR.to_owned());
    }
    let mut containers = Vec::with_capacity(config.container.len() + 1);
    for (index, container) in config.container.iter().enumerate() {
        containers.push(container::resolve(container, &place(index, container), base_dir)?);
    }
    containers.push(container::pause());
    let processes = config.external_process.iter().map(container::external).collect::<Vec<_>>();
    let text = marshal::policy(config, &containers, &processes);
    policy::Enforcer::new(&text)?;
    Ok(text)
}

/// How messages call a container.
fn place(index: usize, container: &Container) -> String {
    match (&container.image_name, &container.image) {
        (Some(name), _) => format!("container {} ({name})", index + 1),
        (None, Some(path)) => format!("container {} ({})", index + 1, path.display()),
        (None, None) => format!("container {}", index + 1),
    }
}

#[cfg(test)]
mod tests;
