//! Whether the root has revoked a certificate of the chain, and whether its lists are recent enough to say so.

use crate::chain::Chain;
use crate::check::Check;
use crate::collateral::Collateral;
use crate::expectations::Revocation;
use crate::list::RevocationList;
use crate::time::Time;

/// Whether a list of the root names the chain, and whether the newest one is current.
///
/// AMD's roots sign the lists; their entries are the authorities. Endorsement keys all have serial number zero and cannot be revoked so.
/// Every list that the root signed counts: those of chip keys and of loaded keys have one issuer, and no authority comes back.
pub(crate) fn checks(chain: &Chain, collateral: &Collateral, now: Time, demand: Revocation) -> [Check; 2] {
    let lists = Lists::of(chain, collateral, now);
    [revoked(chain, &lists, demand), age(&lists, now, demand)]
}

/// The lists that the chain's root signed before now, or why there is none.
struct Lists<'a> {
    genuine: Vec<&'a RevocationList>,
    missing: String,
}

impl<'a> Lists<'a> {
    fn of(chain: &Chain, collateral: &'a Collateral, now: Time) -> Self {
        let Some(root) = chain.root else {
            let missing = "no root".to_owned();
            return Self {
                genuine: Vec::new(),
                missing,
            };
        };
        let named: Vec<&RevocationList> = collateral.lists.iter().filter(|list| list.names(root)).collect();
        let problem = |list: &RevocationList| match list.signed_by(root) {
            Err(error) => Some(error.to_string()),
            Ok(()) => (list.issued() > now).then(|| format!("issued later, at {}", list.issued())),
        };
        let genuine = named.iter().copied().filter(|list| problem(list).is_none()).collect();
        // A list that is not genuine counts as none.
        let missing = match named.first().and_then(|list| problem(list)) {
            Some(problem) => format!("no valid list of the root among {}: {problem}", named.len()),
            None => "no list of the root".to_owned(),
        };
        Self { genuine, missing }
    }

    fn newest(&self) -> Option<&'a RevocationList> {
        self.genuine.iter().copied().max_by_key(|list| (list.issued(), list.due()))
    }
}

fn revoked(chain: &Chain, lists: &Lists, demand: Revocation) -> Check {
    const NAME: &str = "revocation";
    let wanted = match demand {
        Revocation::Unchecked => "no list that names the chain; none is needed",
        Revocation::Required | Revocation::StaleAllowed => "lists of the root that do not name the chain",
    };
    let names = |list: &&&RevocationList| {
        [chain.root, chain.authority]
            .into_iter()
            .flatten()
            .any(|issuer| list.revokes(issuer))
    };
    if let Some(list) = lists.genuine.iter().find(names) {
        let seen = format!("the authority or the root is revoked by the list of {}", list.issued());
        return Check::new(NAME, false, seen, wanted);
    }
    match lists.genuine.len() {
        0 => Check::new(NAME, demand == Revocation::Unchecked, lists.missing.clone(), wanted),
        count => Check::new(NAME, true, format!("not named by {count} of the root's lists"), wanted),
    }
}

/// An old list is always said; whether it fails is the demand's.
fn age(lists: &Lists, now: Time, demand: Revocation) -> Check {
    const NAME: &str = "revocation list age";
    let wanted = match demand {
        Revocation::Required => format!("a list of the root that is current at {now}"),
        Revocation::StaleAllowed => "a list of the root, however old".to_owned(),
        Revocation::Unchecked => "no list is needed".to_owned(),
    };
    let Some(newest) = lists.newest() else {
        return Check::new(NAME, demand == Revocation::Unchecked, lists.missing.clone(), wanted);
    };
    let stale = newest.due() < now;
    let passed = !stale || demand != Revocation::Required;
    let state = match stale {
        true => "STALE: the next was due",
        false => "current: the next is due",
    };
    let seen = format!("list of {} is {state} at {}", newest.issued(), newest.due());
    Check::new(NAME, passed, seen, wanted)
}
