//! Passwords: argon2id, a few at a time, since each takes processor time and memory on purpose.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use registry_store::PasswordHash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// KiB, passes and lanes: OWASP's "m=7168, t=5, p=1", whose memory is small enough for several at once.
const COST: (u32, u32, u32) = (7168, 5, 1);
/// Fewest and most bytes of a password; the most is what one login may cost in memory.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=256;
/// Most hashes at once.
const AT_ONCE: usize = 2;
/// Most logins that wait for their turn.
const WAITING_MAX: usize = 256;

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Fewer than 8 or more than 256 bytes.
    #[error("a password has 8 to 256 bytes")]
    Length,
    /// The system gave no random numbers, or no memory.
    #[error("the password cannot be hashed")]
    Hash,
}

/// More logins wait than can be answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|_| PasswordError::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes a password for the store (argon2id, RFC 9106; a random salt). Takes tens of milliseconds.
///
/// # Errors
/// [`PasswordError`].
pub fn hash_password(text: &str) -> Result<PasswordHash, PasswordError> {
    if !LENGTH.contains(&text.len()) {
        return Err(PasswordError::Length);
    }
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon2()?.hash_password(text.as_bytes(), &salt).map_err(|_| PasswordError::Hash)?;
    hash.to_string().parse().map_err(|_| PasswordError::Hash)
}

/// What an unknown user's password is checked against, so that the time of the answer does not tell who exists.
static NOBODY: LazyLock<Option<PasswordHash>> = LazyLock::new(|| hash_password("nobody's password").ok());

/// The queue of passwords to check.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        LazyLock::force(&NOBODY);
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Passwords {
    /// Whether the password is the one that was hashed. Without a hash it is not, after the same time.
    pub(crate) async fn verify(&self, text: Zeroizing<String>, hash: Option<PasswordHash>) -> Result<bool, Busy> {
        let _waits = Waits::new(&self.waiting)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Busy)?;
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let known = hash.is_some();
            let hash = hash.as_ref().or(NOBODY.as_ref());
            // The text itself is checked, not its length, so that a short one takes as long.
            let text = if text.len() > *LENGTH.end() { "" } else { text.as_str() };
            hash.is_some_and(|hash| matches(text, hash)) && known
        });
        checked.await.map_err(|_| Busy)
    }
}

fn matches(text: &str, hash: &PasswordHash) -> bool {
    let Ok(hash) = argon2::password_hash::PasswordHash::new(hash.as_phc()) else {
        return false;
    };
    argon2().is_ok_and(|argon2| argon2.verify_password(text.as_bytes(), &hash).is_ok())
}

/// One login in the queue; it leaves with its caller, who may hang up.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Result<Self, Busy> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        Ok(Self(waiting))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_its_own_and_nobodys_is_none() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.as_phc().starts_with("$argon2id$v=19$m=7168,t=5,p=1$"));
        assert_ne!(hash_password("correct horse").unwrap().as_phc(), hash.as_phc());
        let passwords = Passwords::default();
        assert_eq!(passwords.verify(text("correct horse"), Some(hash.clone())).await, Ok(true));
        assert_eq!(passwords.verify(text("correct hors"), Some(hash.clone())).await, Ok(false));
        assert_eq!(passwords.verify(text(""), Some(hash)).await, Ok(false));
        assert_eq!(passwords.verify(text("nobody's password"), None).await, Ok(false));
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn lengths_are_limited() {
        assert_eq!(hash_password("1234567").unwrap_err(), PasswordError::Length);
        assert_eq!(hash_password(&"a".repeat(257)).unwrap_err(), PasswordError::Length);
        assert!(hash_password(&"a".repeat(256)).is_ok());
    }

    /// A login that has begun to wait.
    async fn waiting<T>(login: impl Future<Output = T>) -> std::pin::Pin<Box<impl Future<Output = T>>> {
        let mut login = Box::pin(login);
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(login.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        login
    }

    #[tokio::test]
    async fn the_queue_ends_and_those_who_leave_it_make_room() {
        let passwords = Passwords::default();
        let turns = passwords.turns.clone().acquire_many_owned(AT_ONCE as u32).await.unwrap();
        let mut queue = Vec::new();
        for _ in 0..WAITING_MAX {
            queue.push(waiting(passwords.verify(text("a"), None)).await);
        }
        assert_eq!(passwords.verify(text("a"), None).await, Err(Busy));
        queue.pop();
        let last = waiting(passwords.verify(text("a"), None)).await;
        drop((queue, turns));
        assert_eq!(last.await, Ok(false));
    }
}
