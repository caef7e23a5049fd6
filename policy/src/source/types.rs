//! Types of terms, as far as they are known without evaluation: literals, results of built-ins, and what names stand for.

use std::collections::BTreeMap;

use super::signatures::{signature, type_name};
use crate::rego::ast::{Body, Expression, Kind, Literal, LiteralKind, Module, Rule, TermRef};

/// Any type.
const ANY: &str = "x";

/// Types of names: of the module's rules, or of a rule's variables.
pub(super) struct Types<'a> {
    /// The type of each rule that has one definition.
    rules: BTreeMap<&'a str, &'static str>,
    /// The values of those rules.
    values: BTreeMap<&'a str, &'a TermRef>,
}

/// A fault and its offset.
type Problem = (usize, String);

impl<'a> Types<'a> {
    pub(super) fn of(module: &'a Module) -> Self {
        let mut definitions: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
        for rule in &module.rules {
            if let Some(name) = rule.name.path().and_then(|path| path.first().copied()) {
                definitions.entry(name).or_default().push(rule);
            }
        }
        let empty = BTreeMap::new();
        let single = definitions.into_iter().filter_map(|(name, rules)| match rules.as_slice() {
            [rule] if rule.arguments.is_none() && rule.bodies.is_empty() && matches!(rule.name.kind, Kind::Var(_)) => {
                Some((name, rule.value.as_ref()?))
            }
            _ => None,
        });
        let values: BTreeMap<&str, &TermRef> = single.collect();
        let rules = values.iter().map(|(name, value)| (*name, kind_of(value, &empty)));
        Self {
            rules: rules.filter(|(_, kind)| *kind != ANY).collect(),
            values,
        }
    }

    pub(super) fn problems(&self, module: &'a Module) -> Vec<Problem> {
        let mut problems = Vec::new();
        for rule in &module.rules {
            let (known, bound) = self.with_variables(rule);
            let bodies = rule.bodies.iter().chain(rule.otherwise.iter().map(|otherwise| &otherwise.body));
            bodies.flatten().for_each(|literal| match_problem(literal, &known, &mut problems));
            rule.each_term(&mut |term| {
                term.walk(&mut |term| {
                    problem(term, &known, &mut problems);
                    problems.extend(self.undefined(term, &bound));
                });
            });
        }
        problems
    }

    /// What names stand for in a rule. A variable that is bound in two ways has any type.
    fn with_variables(&self, rule: &'a Rule) -> (BTreeMap<&'a str, &'static str>, BTreeMap<&'a str, &'static str>) {
        let mut known = self.rules.clone();
        let bind = |name: &'a str, kind: &'static str, bound: &mut BTreeMap<&'a str, &'static str>| {
            let kind = if bound.contains_key(name) { ANY } else { kind };
            bound.insert(name, kind);
        };
        let mut bound = BTreeMap::new();
        let arguments = rule.arguments.iter().flatten();
        arguments.for_each(|argument| each_variable(argument, &mut |name| bind(name, ANY, &mut bound)));
        let body = |body: &'a Body, bound: &mut BTreeMap<&'a str, &'static str>| {
            for literal in body {
                match &literal.kind {
                    LiteralKind::Declare(names) => names.iter().for_each(|name| bind(name, ANY, bound)),
                    LiteralKind::Some(term) => {
                        if let Kind::Member(key, value, _) = &term.kind {
                            key.iter()
                                .chain([value])
                                .for_each(|term| each_variable(term, &mut |name| bind(name, ANY, bound)));
                        }
                    }
                    LiteralKind::Every { names, .. } => {
                        names
                            .iter()
                            .for_each(|term| each_variable(term, &mut |name| bind(name, ANY, bound)));
                    }
                    LiteralKind::Plain(Expression::Assign {
                        declares: true,
                        left,
                        right,
                    }) => match &left.kind {
                        Kind::Var(name) => {
                            let kind = kind_of(right, &self.rules);
                            bind(name, kind, bound);
                        }
                        _ => each_variable(left, &mut |name| bind(name, ANY, bound)),
                    },
                    _ => {}
                }
            }
        };
        for own in rule.bodies.iter().chain(rule.otherwise.iter().map(|otherwise| &otherwise.body)) {
            body(own, &mut bound);
            for literal in own {
                if let LiteralKind::Every { body: inner, .. } = &literal.kind {
                    body(inner, &mut bound);
                }
            }
        }
        rule.each_term(&mut |term| {
            term.walk(&mut |term| {
                if let Kind::ArrayOf(_, inner) | Kind::SetOf(_, inner) | Kind::ObjectOf(_, _, inner) = &term.kind {
                    body(inner, &mut bound);
                }
            });
        });
        known.extend(bound.iter().map(|(name, kind)| (*name, *kind)));
        (known, bound)
    }

    /// A reference to a part that a literal does not have.
    fn undefined(&self, term: &TermRef, bound: &BTreeMap<&str, &'static str>) -> Option<Problem> {
        let Kind::Ref(head, parts) = &term.kind else { return None };
        let Kind::Var(name) = &head.kind else { return None };
        let undefined = match bound.get(name.as_str()) {
            Some(kind) => !kind.contains(['x', 'a', 'o', 't']),
            None => lacks(self.values.get(name.as_str())?, parts),
        };
        undefined.then(|| (term.span.start, format!("undefined reference into {name}")))
    }
}

/// Whether a literal has no part of that path.
fn lacks(literal: &TermRef, path: &[TermRef]) -> bool {
    let Some((part, rest)) = path.split_first() else { return false };
    let next = match (&literal.kind, &part.kind) {
        (Kind::Object(pairs), Kind::Text(field)) if pairs.iter().all(|(key, _)| matches!(key.kind, Kind::Text(_))) => {
            let mut found = pairs
                .iter()
                .rev()
                .filter(|(key, _)| matches!(&key.kind, Kind::Text(name) if name == field));
            found.next().map(|(_, value)| value)
        }
        (Kind::Array(items), Kind::Number(index)) => index.parse::<usize>().ok().and_then(|index| items.get(index)),
        (Kind::Array(_), Kind::Text(_)) | (Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Null, _) => None,
        _ => return false,
    };
    next.is_none_or(|next| lacks(next, rest))
}

fn each_variable<'a>(term: &'a TermRef, visit: &mut dyn FnMut(&'a str)) {
    term.walk(&mut |term| {
        if let Kind::Var(name) = &term.kind {
            visit(name);
        }
    });
}

/// The type of a term.
fn kind_of(term: &TermRef, known: &BTreeMap<&str, &'static str>) -> &'static str {
    match &term.kind {
        Kind::Null => "u",
        Kind::Bool(_) => "b",
        Kind::Number(_) => "n",
        Kind::Text(_) | Kind::Template(_) => "s",
        Kind::Array(_) | Kind::ArrayOf(..) => "a",
        Kind::Set(_) | Kind::SetOf(..) => "t",
        Kind::Object(_) | Kind::ObjectOf(..) => "o",
        Kind::Member(..) => "b",
        Kind::Parens(inner) => kind_of(inner, known),
        Kind::Var(name) => known.get(name.as_str()).copied().unwrap_or(ANY),
        Kind::Call(function, _) => function
            .path()
            .and_then(|path| signature(&path.join(".")))
            .map_or(ANY, |signature| signature.result),
        Kind::Infix(sign, left, right) => match *sign {
            "+" | "*" | "/" | "%" => "n",
            "|" | "&" => "t",
            "-" => match (kind_of(left, known), kind_of(right, known)) {
                ("n", _) | (_, "n") => "n",
                ("t", _) | (_, "t") => "t",
                _ => "nt",
            },
            _ => "b",
        },
        Kind::Literal | Kind::Ref(..) => ANY,
    }
}

/// Whether two types have a value in common.
fn meet(one: &str, other: &str) -> bool {
    one.contains('x') || other.contains('x') || one.chars().any(|letter| other.contains(letter))
}

fn problem(term: &TermRef, known: &BTreeMap<&str, &'static str>, problems: &mut Vec<Problem>) {
    let at = term.span.start;
    match &term.kind {
        Kind::Call(function, arguments) => {
            let Some(path) = function.path() else { return };
            let name = path.join(".");
            let Some(signature) = signature(&name) else { return };
            for (index, (argument, wanted)) in arguments.iter().zip(signature.arguments).enumerate() {
                let kind = kind_of(argument, known);
                if !meet(kind, wanted) {
                    let (kind, wanted) = (type_name(kind), type_name(wanted));
                    problems.push((at, format!("{name}: argument {} is {kind}, {wanted} expected", index + 1)));
                }
            }
        }
        Kind::Infix(sign, left, right) => {
            let wanted = match *sign {
                "+" | "*" | "/" | "%" => "n",
                "|" | "&" => "t",
                "-" => "nt",
                _ => return,
            };
            for (index, operand) in [left, right].into_iter().enumerate() {
                let kind = kind_of(operand, known);
                if !meet(kind, wanted) {
                    let (kind, wanted) = (type_name(kind), type_name(wanted));
                    problems.push((at, format!("{sign}: operand {} is {kind}, {wanted} expected", index + 1)));
                }
            }
        }
        Kind::ArrayOf(_, body) | Kind::SetOf(_, body) | Kind::ObjectOf(_, _, body) => {
            body.iter().for_each(|literal| match_problem(literal, known, problems));
        }
        _ => {}
    }
}

/// Two sides of `=` that are never equal.
fn match_problem(literal: &Literal, known: &BTreeMap<&str, &'static str>, problems: &mut Vec<Problem>) {
    let (LiteralKind::Plain(Expression::Assign {
        declares: false,
        left,
        right,
    })
    | LiteralKind::Not(Expression::Assign {
        declares: false,
        left,
        right,
    })) = &literal.kind
    else {
        return;
    };
    let (left, right) = (kind_of(left, known), kind_of(right, known));
    if !meet(left, right) {
        let (left, right) = (type_name(left), type_name(right));
        problems.push((literal.span.start, format!("match error: {left} and {right}")));
    }
}
