//! The cookie that says who has signed in and until when, sealed instead of stored.
//!
//! The seal covers the user's password hash, and the user is looked up on every request: a session ends with its time, when the
//! password changes, when the user is blocked or removed, and when the signing key is withdrawn. Signing out removes the cookie
//! from the browser. Every instance with the same keys takes it.

use crate::clock::Now;
use crate::keys::Keyring;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry_store::{Snapshot, User, UserId};

/// Length of a session in seconds.
const LIFETIME: i64 = 8 * 3600;
/// How far the clocks of two instances may be apart, in seconds.
const CLOCKS_APART: i64 = 60;
const SESSION: &str = "web session";
const FORM: &str = "web form";
/// Longest cookie in characters: two numbers and a seal.
const MAX_BYTES: usize = 128;

/// A cookie's text.
#[derive(Clone)]
pub(super) struct Cookie(String);

impl Cookie {
    /// A session that begins now. None for users without a password, who cannot have signed in with one.
    pub(super) fn new(keys: &Keyring, user: &User, now: Now) -> Option<Self> {
        let ends = now.seconds().saturating_add(LIFETIME);
        let hash = user.password.as_ref()?.as_phc();
        let seal = keys.seal(SESSION, &parts(&user.id.to_le_bytes(), &ends.to_le_bytes(), hash));
        Some(Self(format!("{}.{ends}.{}", user.id, URL_SAFE_NO_PAD.encode(seal))))
    }

    /// The cookie among a request's headers.
    pub(super) fn of(headers: &HeaderMap, secure: bool) -> Option<Self> {
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, value)| *key == name(secure) && value.len() <= MAX_BYTES)
            .map(|(_, value)| Self(value.to_owned()))
    }

    /// The user, where the seal is whole, the time is not over and the user may still do something.
    pub(super) fn user<'a>(&self, keys: &Keyring, snapshot: &'a Snapshot, now: Now) -> Option<&'a User> {
        let (id, rest) = self.0.split_once('.')?;
        let (ends, seal) = rest.split_once('.')?;
        let (id, ends): (UserId, i64) = (id.parse().ok()?, ends.parse().ok()?);
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        let user = snapshot.user_by_id(id)?;
        let hash = user.password.as_ref()?.as_phc();
        let whole = keys.unseal(SESSION, &parts(&id.to_le_bytes(), &ends.to_le_bytes(), hash), &seal);
        (whole && is_current(ends, now.seconds()) && !user.blocked).then_some(user)
    }

    /// The word that forms of this session carry.
    pub(super) fn form_key(&self, keys: &Keyring) -> String {
        URL_SAFE_NO_PAD.encode(keys.seal(FORM, &[self.0.as_bytes()]))
    }

    /// Whether a form of this session carried `key`.
    pub(super) fn wrote_form(&self, keys: &Keyring, key: &str) -> bool {
        let seal = URL_SAFE_NO_PAD.decode(key).unwrap_or_default();
        keys.unseal(FORM, &[self.0.as_bytes()], &seal)
    }

    /// `Set-Cookie` with it.
    pub(super) fn header(&self, secure: bool) -> Option<HeaderValue> {
        set(secure, &self.0, LIFETIME)
    }
}

/// Whether a session that ends then goes on now. One that has not begun was sealed by a clock that went back since.
fn is_current(ends: i64, now: i64) -> bool {
    now < ends && ends <= now.saturating_add(LIFETIME + CLOCKS_APART)
}

/// `Set-Cookie` that removes it.
pub(super) fn removal(secure: bool) -> Option<HeaderValue> {
    set(secure, "", 0)
}

fn set(secure: bool, value: &str, age: i64) -> Option<HeaderValue> {
    let only_tls = if secure { "; Secure" } else { "" };
    let text = format!(
        "{}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{only_tls}",
        name(secure)
    );
    HeaderValue::try_from(text).ok()
}

/// With the prefix, a browser takes it from this very host by TLS alone (RFC 6265bis, 4.1.3.2).
fn name(secure: bool) -> &'static str {
    if secure { "__Host-casemate-session" } else { "casemate-session" }
}

fn parts<'a>(id: &'a [u8], ends: &'a [u8], hash: &'a str) -> [&'a [u8]; 3] {
    [id, ends, hash.as_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_and_do_not_begin_later() {
        for (ends, now, current) in [
            (LIFETIME, 0, true),
            (LIFETIME, LIFETIME - 1, true),
            (LIFETIME, LIFETIME, false),
            (LIFETIME + CLOCKS_APART, 0, true),
            (LIFETIME + CLOCKS_APART + 1, 0, false),
            (i64::MAX, 0, false),
            (i64::MIN, 0, false),
        ] {
            assert_eq!(is_current(ends, now), current, "{ends} {now}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others_and_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; casemate-session=1.2.x; c=d".parse().unwrap());
        headers.append(header::COOKIE, "__Host-casemate-session=3.4.y".parse().unwrap());
        let text = |secure| Cookie::of(&headers, secure).map(|cookie| cookie.0);
        assert_eq!(text(false).as_deref(), Some("1.2.x"));
        assert_eq!(text(true).as_deref(), Some("3.4.y"));
        let value = Cookie("1.2.x".to_owned()).header(true).unwrap();
        let whole = "__Host-casemate-session=1.2.x; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(value.to_str().unwrap(), whole);
    }
}
