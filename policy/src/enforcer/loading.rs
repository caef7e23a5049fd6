//! Actions that extend the policy: fragments and trust lists.
//!
//! A fragment is evaluated in a new interpreter. That replaces the current one only if the policy allows the fragment, so a failed
//! load changes no rule.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Enforcer;
use crate::action::{Action, LoadFragment, LoadTransparencyTrustList, TrustListVerdict};
use crate::denied::Reason;
use crate::fragment::{self, Active, FragmentError};
use crate::ledgers::{LedgerKey, ProvenReceipt};
use crate::rego::normal::package_name;
use crate::verdict::{Answer, FragmentVerdict, Verdict, go_type};

const POINT: &str = LoadFragment::POINT;

impl Enforcer {
    /// The receipts that a key of a loaded trust list verifies. A claim is the ledger that a receipt names as its issuer, and the
    /// receipt; `confirms` checks its signature with the key of an id.
    pub fn proven_receipts<R>(
        &self,
        claims: impl IntoIterator<Item = (String, R)>,
        mut confirms: impl FnMut(&R, &str, &[u8]) -> bool,
    ) -> Vec<ProvenReceipt> {
        claims
            .into_iter()
            .filter_map(|(issuer, receipt)| self.memory.ledgers.prove(&issuer, |id, key| confirms(&receipt, id, key)))
            .collect()
    }

    /// The keys of a ledger, by id.
    pub fn ledger_keys(&self, ledger: &str) -> impl Iterator<Item = (&str, &LedgerKey)> {
        self.memory
            .ledgers
            .keys_of(ledger)
            .into_iter()
            .flatten()
            .map(|(id, key)| (id.as_str(), key))
    }

    /// Issuer, feed and namespace of each fragment in use.
    pub fn active_fragments(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.memory
            .active
            .iter()
            .map(|active| (active.issuer.as_str(), active.feed.as_str(), active.namespace.as_str()))
    }

    /// Queries the policy about a trust list, and loads the keys of the ledgers that it allows.
    pub(super) fn load_trust_list(&mut self, list: &LoadTransparencyTrustList) -> Result<Map<String, Json>, Reason> {
        let result = self.decide_action(list)?;
        let answer = Answer {
            result: &result,
            container_stdio: false,
            fragment: None,
        };
        let verdict = TrustListVerdict::read(&answer, &list.subject()).map_err(Reason::Refused)?;
        let mut ledgers = self.memory.ledgers.clone();
        for ledger in &verdict.allowed_ledgers {
            for (id, key) in list.ledgers.get(ledger).into_iter().flatten() {
                if !ledgers.offer(ledger, id, key, &list.subject) {
                    return Err(Reason::Refused("transparency trust list carries too many keys".to_owned()));
                }
            }
        }
        self.memory.ledgers = ledgers;
        Ok(result)
    }

    /// Queries the policy about a fragment: first without its rules, then with them, once for each parameter object.
    pub(super) fn load_fragment(&mut self, request: &LoadFragment) -> Result<FragmentVerdict, Reason> {
        let namespace = fragment::namespace(&request.text).map_err(refused)?;
        if self.memory.loads >= fragment::MAX_LOADED {
            return Err(refused(FragmentError::TooMany("fragments were loaded too often")));
        }
        let expected = self.decide(POINT, request.question(namespace, false))?;
        let sets = parameter_sets(&expected)?;
        self.check_namespace(request, namespace)?;
        let mut verdict = FragmentVerdict {
            namespace: namespace.to_owned(),
            active: false,
            answers: vec![expected],
        };
        for parameters in &sets {
            let (answer, add_module) = self.query_loaded(request, namespace, parameters, sets.len() > 1)?;
            verdict.answers.push(answer);
            self.memory.loads += 1;
            verdict.active = add_module;
            if add_module {
                break;
            }
        }
        Ok(verdict)
    }

    /// Queries the policy with the fragment's rules loaded. Returns the answer, and whether the fragment stays in use.
    fn query_loaded(
        &mut self,
        request: &LoadFragment,
        namespace: &str,
        parameters: &Map<String, Json>,
        one_of_many: bool,
    ) -> Result<(Map<String, Json>, bool), Reason> {
        let input = request.question(namespace, true);
        let mut offered = Active {
            issuer: request.issuer.clone(),
            feed: request.feed.clone(),
            namespace: namespace.to_owned(),
            text: fragment::with_parameters(&request.text, namespace, parameters),
            svn: request.header_svn,
        };
        let others: Vec<Active> = self
            .memory
            .active
            .iter()
            .filter(|active| !active.is(&request.issuer, &request.feed))
            .cloned()
            .collect();
        let scratch = self.interpreter.scratch(others.iter().chain([&offered]), Some(namespace));
        let scratch = scratch.map_err(|error| Reason::Invalid {
            input: input.clone(),
            policy_error: format!("error when compiling modules: {error}"),
        })?;
        let in_use = self
            .interpreter
            .enter(scratch)
            .map_err(|error| Reason::Refused(error.to_string()))?;
        let svn = self
            .interpreter
            .value(&format!("data.{}.svn", package_name(namespace)), regorus::Value::new_object());
        offered.svn = svn.ok().as_ref().and_then(fragment::whole_number).or(offered.svn);
        let decided = self
            .check_age(&offered)
            .and_then(|()| self.decide(POINT, input))
            .and_then(|answer| {
                let add_module = match answer.get("add_module") {
                    Some(Json::Bool(add_module)) => *add_module,
                    None => false,
                    Some(_) => return Err(Reason::Refused("value for 'add_module' is not a boolean".to_owned())),
                };
                if add_module && one_of_many {
                    let text = "Fragment cannot include namespace if multiple possible parameter combinations are defined";
                    return Err(Reason::Refused(text.to_owned()));
                }
                Ok((answer, add_module))
            });
        if matches!(decided, Ok((_, true))) {
            self.memory.active = Arc::new(others.into_iter().chain([offered]).collect());
        } else if let Err(error) = self.interpreter.enter(in_use) {
            self.poisoned = true;
            return Err(Reason::Refused(error.to_string()));
        }
        decided
    }

    /// Two fragments must not share a namespace.
    fn check_namespace(&self, request: &LoadFragment, namespace: &str) -> Result<(), Reason> {
        let taken = self
            .memory
            .active
            .iter()
            .find(|active| active.namespace == namespace && !active.is(&request.issuer, &request.feed));
        match taken {
            None => Ok(()),
            Some(active) => Err(refused(FragmentError::Taken {
                namespace: namespace.to_owned(),
                issuer: active.issuer.clone(),
                feed: active.feed.clone(),
            })),
        }
    }

    /// A strict policy does not replace a fragment in use by an older one.
    fn check_age(&self, offered: &Active) -> Result<(), Reason> {
        let in_use = self.memory.active.iter().find(|active| active.is(&offered.issuer, &offered.feed));
        match (in_use.and_then(|active| active.svn), offered.svn) {
            (Some(in_use), Some(offered)) if self.strict && offered < in_use => Err(refused(FragmentError::Older { offered, in_use })),
            _ => Ok(()),
        }
    }
}

fn refused(error: FragmentError) -> Reason {
    Reason::Refused(error.to_string())
}

/// The parameter objects of the first answer, at least one.
fn parameter_sets(answer: &Map<String, Json>) -> Result<Vec<Map<String, Json>>, Reason> {
    let list = match answer.get("parameters") {
        None => return Ok(vec![Map::new()]),
        Some(Json::Array(list)) => list,
        Some(other) => {
            return Err(Reason::Refused(format!(
                "unable to get parameters from load_fragment result: value for 'parameters' is not an array, got {}",
                go_type(other)
            )));
        }
    };
    if list.len() > fragment::MAX_PARAMETER_SETS {
        return Err(refused(FragmentError::TooMany("the policy has too many parameter objects for it")));
    }
    let object = |entry: &Json| match entry {
        Json::Object(object) => Ok(object.clone()),
        other => Err(Reason::Refused(format!("parameters must be an object, got {}", go_type(other)))),
    };
    let sets: Vec<_> = list.iter().map(object).collect::<Result<_, _>>()?;
    Ok(if sets.is_empty() { vec![Map::new()] } else { sets })
}

#[cfg(test)]
mod tests;
