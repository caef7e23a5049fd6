//! A limit on failed logins, for each address and for each account, in bounded memory.

use crate::config::FailedLogins;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most addresses, and most accounts, that are counted in one window; at 16 bytes each, with room to spare.
const ENTRIES_MAX: usize = 1 << 15;

/// The counts of failed logins.
pub(crate) struct Throttle {
    limits: FailedLogins,
    window: Duration,
    hasher: RandomState,
    /// Apart from the accounts, so that who has many addresses cannot push out the counts of those.
    addresses: Mutex<Counts>,
    accounts: Mutex<Counts>,
}

/// Failures of this window and of the one before: a count lasts between one and two windows.
struct Counts {
    began: Instant,
    now: HashMap<u64, u32>,
    before: HashMap<u64, u32>,
}

impl Throttle {
    pub(crate) fn new(limits: FailedLogins, window: Duration, now: Instant) -> Self {
        Self {
            limits,
            window,
            hasher: RandomState::new(),
            addresses: Mutex::new(Counts::new(now)),
            accounts: Mutex::new(Counts::new(now)),
        }
    }

    /// Whether this address failed too often.
    pub(crate) fn refuses_address(&self, address: IpAddr, now: Instant) -> bool {
        let key = self.address_key(address);
        self.current(&self.addresses, now).of(key) >= self.limits.per_address
    }

    /// Whether too many passwords were tried on this account. Tokens, which nobody guesses, do not ask.
    pub(crate) fn refuses_account(&self, account: &str, now: Instant) -> bool {
        let key = self.hasher.hash_one(account);
        self.current(&self.accounts, now).of(key) >= self.limits.per_account
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: IpAddr, account: Option<&str>, now: Instant) {
        let address = self.address_key(address);
        self.current(&self.addresses, now).add(address, now);
        if let Some(account) = account {
            let account = self.hasher.hash_one(account);
            self.current(&self.accounts, now).add(account, now);
        }
    }

    /// Forgets the failures of an account whose owner has logged in to it.
    pub(crate) fn succeeded(&self, account: &str, now: Instant) {
        let key = self.hasher.hash_one(account);
        let mut counts = self.current(&self.accounts, now);
        counts.now.remove(&key);
        counts.before.remove(&key);
    }

    fn current<'a>(&self, counts: &'a Mutex<Counts>, now: Instant) -> MutexGuard<'a, Counts> {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(counts.began);
        if age >= self.window {
            counts.turn(now);
            if age >= self.window * 2 {
                counts.before.clear();
            }
        }
        counts
    }

    /// One for each IPv4 address and each /64 of IPv6, which is what one host has.
    fn address_key(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.hasher.hash_one((4_u8, address.octets())),
            IpAddr::V6(address) => self.hasher.hash_one((6_u8, &address.octets()[..8])),
        }
    }
}

/// A password that is being checked. It counts as a failure unless its outcome is known: whoever hangs up in the meantime has cost
/// the same.
pub(crate) struct Attempt<'a> {
    throttle: &'a Throttle,
    address: IpAddr,
    account: &'a str,
    known: bool,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(throttle: &'a Throttle, address: IpAddr, account: &'a str) -> Self {
        Self {
            throttle,
            address,
            account,
            known: false,
        }
    }

    /// The outcome is known, and counted by whoever knows it.
    pub(crate) fn ends(mut self) {
        self.known = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.known {
            self.throttle.failed(self.address, Some(self.account), Instant::now());
        }
    }
}

impl Counts {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            now: HashMap::new(),
            before: HashMap::new(),
        }
    }

    fn of(&self, key: u64) -> u32 {
        let count = |counts: &HashMap<u64, u32>| counts.get(&key).copied().unwrap_or_default();
        count(&self.now).saturating_add(count(&self.before))
    }

    fn add(&mut self, key: u64, now: Instant) {
        if self.now.len() >= ENTRIES_MAX && !self.now.contains_key(&key) {
            self.turn(now);
        }
        let count = self.now.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    fn turn(&mut self, now: Instant) {
        self.before = std::mem::take(&mut self.now);
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn throttle(now: Instant) -> Throttle {
        let limits = FailedLogins {
            per_address: 3,
            per_account: 4,
            window: 10,
        };
        Throttle::new(limits, WINDOW, now)
    }

    #[test]
    fn an_address_is_refused_at_its_limit_and_forgiven_in_time() {
        let start = Instant::now();
        let throttle = throttle(start);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            assert!(!throttle.refuses_address(a, start));
            throttle.failed(a, None, start);
        }
        assert!(throttle.refuses_address(a, start));
        assert!(throttle.refuses_address("::ffff:192.0.2.1".parse().unwrap(), start));
        assert!(!throttle.refuses_address(b, start));
        assert!(throttle.refuses_address(a, start + WINDOW));
        assert!(!throttle.refuses_address(a, start + WINDOW * 2));
    }

    #[test]
    fn who_hangs_up_while_a_password_is_checked_has_failed() {
        let start = Instant::now();
        let throttle = throttle(start);
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            Attempt::new(&throttle, a, "ann").ends();
        }
        assert!(!throttle.refuses_address(a, start));
        for _ in 0..3 {
            drop(Attempt::new(&throttle, a, "ann"));
        }
        assert!(throttle.refuses_address(a, start) && !throttle.refuses_account("ann", start));
        drop(Attempt::new(&throttle, "192.0.2.2".parse().unwrap(), "ann"));
        assert!(throttle.refuses_account("ann", start));
    }

    #[test]
    fn after_a_long_silence_nothing_is_left() {
        let start = Instant::now();
        let throttle = throttle(start);
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        (0..3).for_each(|_| throttle.failed(a, None, start));
        assert!(throttle.refuses_address("2001:db8::ffff:1".parse().unwrap(), start));
        assert!(!throttle.refuses_address("2001:db8:0:1::1".parse().unwrap(), start));
        assert!(!throttle.refuses_address(a, start + WINDOW * 5));
    }

    #[test]
    fn an_account_is_refused_from_wherever_it_is_tried_until_its_owner_comes() {
        let start = Instant::now();
        let throttle = throttle(start);
        for n in 0..4 {
            assert!(!throttle.refuses_account("ann", start));
            throttle.failed(IpAddr::from([192, 0, 2, n]), Some("ann"), start);
        }
        assert!(throttle.refuses_account("ann", start));
        assert!(!throttle.refuses_account("bob", start));
        throttle.succeeded("ann", start);
        assert!(!throttle.refuses_account("ann", start));
    }

    #[test]
    fn the_table_does_not_grow_past_its_bound() {
        let start = Instant::now();
        let throttle = throttle(start);
        (0..4).for_each(|_| throttle.failed("2001:db8::1".parse().unwrap(), Some("ann"), start));
        for n in 0..3 * ENTRIES_MAX as u32 {
            throttle.failed(IpAddr::from(n.to_be_bytes()), None, start);
        }
        let counts = throttle.addresses.lock().unwrap();
        assert!(counts.now.len() <= ENTRIES_MAX && counts.before.len() <= ENTRIES_MAX);
        drop(counts);
        // Nor does one table push out the other.
        assert!(throttle.refuses_account("ann", start));
    }
}
