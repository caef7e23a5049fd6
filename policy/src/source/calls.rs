//! Calls of a module: of its own functions, unless they are recursive, of functions elsewhere in `data`, and of pure built-ins.

use std::collections::{BTreeMap, BTreeSet};

use super::SourceError;
use super::builtins::BUILTINS;
use crate::rego::ast::{Kind, Module, Rule, TermRef};
use crate::rego::positions::line_and_column;

/// Refuses calls of functions that are neither the module's own nor pure. `generated` tells calls that are no part of the policy.
pub(super) fn refuse_forbidden(text: &str, module: &Module, generated: impl Fn(usize) -> bool) -> Result<(), SourceError> {
    let names = Names::of(module);
    let mut refused = None;
    each_call(module, &mut |function, _| {
        if let Some(path) = function.path()
            && refused.is_none()
            && !generated(function.span.start)
            && !names.may_call(&path)
        {
            refused = Some(SourceError::Forbidden {
                name: path.join("."),
                line: line_and_column(text, function.span.start).0,
            });
        }
    });
    refused.map_or(Ok(()), Err)
}

/// Refuses a call of a built-in that stands where a rule should: `count([1])`.
pub(super) fn refuse_names(text: &str, module: &Module) -> Result<(), SourceError> {
    let is_fact = |rule: &&Rule| rule.value.is_none() && rule.bodies.is_empty() && rule.key.is_none();
    for rule in module.rules.iter().filter(is_fact) {
        let name = rule.name.path().unwrap_or_default().join(".");
        if BUILTINS.contains(&name.as_str()) {
            let (line, _) = line_and_column(text, rule.span.start);
            return Err(SourceError::Named { name, line });
        }
    }
    Ok(())
}

/// Refuses recursive functions, which would exhaust the interpreter's stack. The interpreter itself detects recursive rules.
pub(super) fn refuse_recursion(module: &Module) -> Result<(), SourceError> {
    let names = Names::of(module);
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in module.rules.iter().filter(|rule| rule.arguments.is_some()) {
        let Some(path) = rule.name.path() else { continue };
        let called = calls.entry(path.join(".")).or_default();
        rule.each_term(&mut |term| {
            term.walk(&mut |term| {
                if let Kind::Call(function, _) = &term.kind
                    && let Some(path) = function.path()
                {
                    called.insert(names.own(&path));
                }
            });
        });
    }
    // A function that calls only functions known to end also ends. Those are removed until none is left; the rest is recursive.
    loop {
        let ends: Vec<String> = calls
            .iter()
            .filter(|(_, called)| !called.iter().any(|name| calls.contains_key(name)))
            .map(|(name, _)| name.clone())
            .collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|name| drop(calls.remove(name)));
    }
    match calls.into_keys().next() {
        None => Ok(()),
        Some(name) => Err(SourceError::Recursive(name)),
    }
}

/// Visits each call: the function, and its arguments.
pub(super) fn each_call<'a>(module: &'a Module, visit: &mut dyn FnMut(&'a TermRef, &'a [TermRef])) {
    for rule in &module.rules {
        rule.each_term(&mut |term| {
            term.walk(&mut |term| {
                if let Kind::Call(function, arguments) = &term.kind {
                    visit(function, arguments);
                }
            });
        });
    }
}

/// The names that a module gives to functions.
pub(super) struct Names<'a> {
    functions: BTreeSet<String>,
    /// What each import introduces, and its path.
    imports: BTreeMap<&'a str, &'a [String]>,
    package: &'a [String],
}

impl<'a> Names<'a> {
    pub(super) fn of(module: &'a Module) -> Self {
        let functions = module.rules.iter().filter(|rule| rule.arguments.is_some());
        Self {
            functions: functions.filter_map(|rule| Some(rule.name.path()?.join("."))).collect(),
            imports: module
                .imports
                .iter()
                .map(|import| (import.name(), import.path.as_slice()))
                .collect(),
            package: &module.package,
        }
    }

    fn may_call(&self, path: &[&str]) -> bool {
        let first = path.first().copied().unwrap_or("");
        let name = path.join(".");
        matches!(first, "data" | "input")
            || self.imports.contains_key(first)
            || self.functions.contains(&name)
            || BUILTINS.contains(&name.as_str())
    }

    /// The name of a function of the module itself without its package: `f` for `data.policy.f`, and as imported.
    pub(super) fn own(&self, path: &[&str]) -> String {
        let full: Vec<&str> = match path.split_first() {
            Some((first, rest)) if self.imports.contains_key(first) && !self.functions.contains(&path.join(".")) => {
                let target = self.imports.get(first).copied().unwrap_or_default();
                target.iter().map(String::as_str).chain(rest.iter().copied()).collect()
            }
            _ => path.to_vec(),
        };
        let inside = full
            .strip_prefix(&["data"])
            .and_then(|rest| {
                rest.get(..self.package.len())
                    .filter(|package| *package == self.package)
                    .map(|_| rest)
            })
            .and_then(|rest| rest.get(self.package.len()..));
        inside.map_or_else(|| full.join("."), |rest| rest.join("."))
    }
}
