//! A pod as the kubelet describes it to containerd's sandbox controller: CRI's `PodSandboxConfig`, and what a bundle of its sandbox
//! container would have said of it.
//!
//! With `sandboxer = "podsandbox"` containerd itself writes a document and the pod's files (`internal/cri/server/podsandbox`); with
//! `sandboxer = "shim"` the shim gets the configuration and nothing else. What [`document`] and [`PodFiles`] make is the same where the
//! guest sees it, so that one policy serves both.
#![forbid(unsafe_code)]

mod document;
mod files;
mod refusal;

pub use document::{Place, document};
pub use files::PodFiles;
pub use k8s_cri::v1::PodSandboxConfig;
pub use refusal::Refused;

use prost::Message;

/// Type URL of the configuration in `CreateSandboxRequest.options`.
pub const TYPE_URL: &str = "runtime.v1.PodSandboxConfig";
/// Longest configuration: annotations of Kubernetes have 256 KiB, and little else grows.
pub const CONFIG_BYTES: usize = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PodConfigError {
    /// It is of another type.
    #[error("the sandbox's options are {0:?}; {TYPE_URL} is known")]
    Type(String),
    /// It is too long.
    #[error("the pod's configuration has {0} bytes; {CONFIG_BYTES} are taken")]
    Long(usize),
    /// It is not a message of that type.
    #[error("the pod's configuration is no {TYPE_URL}")]
    Decode(#[source] prost::DecodeError),
    /// It asks for what a pod in a VM cannot have.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Reads the options of a `CreateSandbox`; those without content are a pod without any.
///
/// # Errors
/// See [`PodConfigError`].
pub fn read(type_url: &str, value: &[u8]) -> Result<PodSandboxConfig, PodConfigError> {
    // A URL may have a host; containerd's have none.
    if !type_url.is_empty() && type_url.rsplit('/').next() != Some(TYPE_URL) {
        return Err(PodConfigError::Type(type_url.to_owned()));
    }
    if value.len() > CONFIG_BYTES {
        return Err(PodConfigError::Long(value.len()));
    }
    let config = PodSandboxConfig::decode(value).map_err(PodConfigError::Decode)?;
    refusal::check(&config)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_configuration_is_read() {
        let config = PodSandboxConfig {
            hostname: "web".to_owned(),
            ..Default::default()
        };
        let bytes = config.encode_to_vec();
        assert_eq!(read(TYPE_URL, &bytes).unwrap().hostname, "web");
        assert_eq!(
            read("types.containerd.io/runtime.v1.PodSandboxConfig", &bytes).unwrap().hostname,
            "web"
        );
        assert_eq!(read("", &[]).unwrap(), PodSandboxConfig::default());
        assert!(matches!(read("x.Options", &bytes), Err(PodConfigError::Type(_))));
        assert!(matches!(read(TYPE_URL, &bytes[..2]), Err(PodConfigError::Decode(_))));
        assert!(matches!(read(TYPE_URL, &vec![0; CONFIG_BYTES + 1]), Err(PodConfigError::Long(_))));
    }
}
