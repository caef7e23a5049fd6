//! A limit on failed logins, for each address and for each account, in bounded memory.

use crate::config::FailedLogins;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most addresses and accounts that are counted in one window; at 16 bytes each, with room to spare.
const ENTRIES_MAX: usize = 1 << 15;

/// The counts of failed logins.
pub(crate) struct Throttle {
    limits: FailedLogins,
    window: Duration,
    hasher: RandomState,
    counts: Mutex<Counts>,
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
            counts: Mutex::new(Counts {
                began: now,
                now: HashMap::new(),
                before: HashMap::new(),
            }),
        }
    }

    /// Whether this address failed too often.
    pub(crate) fn refuses_address(&self, address: IpAddr, now: Instant) -> bool {
        let key = self.address_key(address);
        self.current(now).of(key) >= self.limits.per_address
    }

    /// Whether too many passwords were tried on this account. Tokens, which nobody guesses, do not ask.
    pub(crate) fn refuses_account(&self, account: &str, now: Instant) -> bool {
        let key = self.hasher.hash_one((1_u8, account));
        self.current(now).of(key) >= self.limits.per_account
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: IpAddr, account: Option<&str>, now: Instant) {
        let address = self.address_key(address);
        let account = account.map(|account| self.hasher.hash_one((1_u8, account)));
        let mut counts = self.current(now);
        counts.add(address, now);
        if let Some(account) = account {
            counts.add(account, now);
        }
    }

    /// Forgets the failures of an account whose owner has logged in to it.
    pub(crate) fn succeeded(&self, account: &str, now: Instant) {
        let key = self.hasher.hash_one((1_u8, account));
        let mut counts = self.current(now);
        counts.now.remove(&key);
        counts.before.remove(&key);
    }

    fn current(&self, now: Instant) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
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

impl Counts {
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
        for n in 0..3 * ENTRIES_MAX as u32 {
            throttle.failed(IpAddr::from(n.to_be_bytes()), None, start);
        }
        let counts = throttle.counts.lock().unwrap();
        assert!(counts.now.len() <= ENTRIES_MAX && counts.before.len() <= ENTRIES_MAX);
    }
}
