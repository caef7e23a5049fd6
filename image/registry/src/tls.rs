//! TLS for one registry, as its section trusts: never less, and for pinned certificates never more.

mod verifier;

use crate::config::Trust;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use std::sync::Arc;
use verifier::{Anybody, Nobody, Roots};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsError(#[from] rustls::Error);

/// TLS 1.2 and 1.3.
pub(crate) fn configuration(trust: &Trust) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::WebPki => Arc::new(Roots::web(&provider)),
        Trust::Pinned(certificates) => Arc::new(Roots::pinned(certificates.clone(), &provider)),
        Trust::Nothing => Arc::new(Nobody),
        Trust::SkipVerify => Arc::new(Anybody::new(&provider)),
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
