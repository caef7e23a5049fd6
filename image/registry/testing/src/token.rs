//! A token service for Debian's registry, which brings none: JWTs that it accepts (ES256, `x5c`).

use super::authority::{Authority, Identity};
use super::server::{Answer, Request, Server};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::time::{Duration, SystemTime};

pub const SERVICE: &str = "test-registry";
pub const ISSUER: &str = "test-issuer";

/// A running service.
pub struct TokenService {
    pub server: Server,
    /// For the registry's `rootcertbundle`.
    pub certificate: String,
}

/// Whom it gives tokens.
#[derive(Clone, Copy)]
pub struct Accepts {
    /// Value of the `Authorization` header of a GET.
    pub basic: Option<&'static str>,
    /// A refresh token, for a POST; without one a POST is answered 404.
    pub refresh: Option<&'static str>,
}

impl TokenService {
    /// Starts it with a certificate of `localhost`.
    pub fn start(authority: &Authority, accepts: Accepts) -> Self {
        let signer = authority.issue(&["token signer"]);
        let certificate = signer.certificate.clone();
        let tls = authority.issue(&["localhost"]);
        let server = Server::start(Some(&tls), move |request| answer(request, &signer, accepts));
        Self { server, certificate }
    }

    /// Its URL, by a name: a literal address of this machine would be refused.
    pub fn realm(&self) -> String {
        format!("https://localhost:{}/token", self.server.port)
    }
}

fn answer(request: &Request, signer: &Identity, accepts: Accepts) -> Answer {
    let refused = |status, message: &str| {
        Answer::new(
            status,
            json!({"errors": [{"code": "UNAUTHORIZED", "message": message}]}).to_string(),
        )
    };
    match request.method.as_str() {
        "POST" => match accepts.refresh {
            None => refused(404, "no refresh tokens here"),
            Some(refresh) if request.body.contains(&format!("refresh_token={refresh}")) => granted(signer),
            // As careless services do.
            Some(_) => refused(401, &format!("bad request {}", request.body)),
        },
        _ if request.headers.get("authorization").map(String::as_str) == accepts.basic => granted(signer),
        _ => refused(401, "HTTP Basic: Access denied"),
    }
}

fn granted(signer: &Identity) -> Answer {
    let token = token(signer, SystemTime::now());
    Answer::new(200, json!({ "token": token, "expires_in": 300 }).to_string())
}

/// A token for pulling [`super::image::NAME`], which was issued at this time and lives for five minutes.
pub fn token(signer: &Identity, issued: SystemTime) -> String {
    let der = CertificateDer::from_pem_slice(signer.certificate.as_bytes()).unwrap();
    let now = issued.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let after = |seconds| (now + Duration::from_secs(seconds)).as_secs();
    let header = json!({ "alg": "ES256", "typ": "JWT", "x5c": [STANDARD.encode(&der)] });
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": "", "iat": now.as_secs(), "nbf": now.as_secs() - 5, "exp": after(300), "jti": "1",
        "access": [{ "type": "repository", "name": super::image::NAME, "actions": ["pull"] }],
    });
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let key = SigningKey::from_pkcs8_pem(&signer.key).unwrap();
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}
