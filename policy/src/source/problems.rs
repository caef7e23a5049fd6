//! What OPA's compiler refuses and the interpreter loads: for `policy check`.
//!
//! Such a policy does not load in hcsshim, and here its faulty rules deny or are undefined.

use std::collections::{BTreeMap, BTreeSet};

use super::SourceError;
use super::calls::{Names, each_call};
use super::types::Types;
use crate::rego;
use crate::rego::ast::{Body, Expression, Kind, LiteralKind, Module, Rule, Term, TermRef};
use crate::rego::positions::line_and_column;

/// A fault and its line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompileProblem {
    /// The line, from 1.
    pub line: usize,
    /// The fault.
    pub problem: String,
}

/// What OPA's compiler refuses in a module that is valid Rego.
///
/// # Errors
/// The text is not valid Rego.
pub(crate) fn problems(text: &str) -> Result<Vec<CompileProblem>, SourceError> {
    let module = rego::parse(text)?;
    let mut finder = Finder {
        text,
        found: BTreeSet::new(),
    };
    finder.arities(&module);
    finder.recursion(&module);
    finder.rules(&module);
    for rule in &module.rules {
        finder.bodies(rule);
    }
    for (at, problem) in Types::of(&module).problems(&module) {
        finder.note(at, problem);
    }
    Ok(finder.found.into_iter().collect())
}

struct Finder<'a> {
    text: &'a str,
    found: BTreeSet<CompileProblem>,
}

impl Finder<'_> {
    fn note(&mut self, at: usize, problem: String) {
        self.found.insert(CompileProblem {
            line: line_and_column(self.text, at).0,
            problem,
        });
    }

    /// Calls with too few or too many arguments. A statement may name the result in one argument more.
    fn arities(&mut self, module: &Module) {
        let names = Names::of(module);
        let mut own: BTreeMap<String, usize> = BTreeMap::new();
        for rule in &module.rules {
            let Some((path, arguments)) = rule.name.path().zip(rule.arguments.as_ref()) else {
                continue;
            };
            let name = path.join(".");
            if *own.entry(name.clone()).or_insert(arguments.len()) != arguments.len() {
                self.note(
                    rule.span.start,
                    format!("conflicting rules {name}: their numbers of arguments differ"),
                );
            }
        }
        let statements = statement_calls(module);
        let mut wrong = Vec::new();
        each_call(module, &mut |function, arguments| {
            let Some(path) = function.path() else { return };
            let name = names.own(&path);
            let wanted = own
                .get(&name)
                .copied()
                .or_else(|| super::signatures::signature(&name).map(|signature| signature.arguments.len()));
            let Some(wanted) = wanted else {
                if name != path.join(".") && !name.starts_with("data.") {
                    wrong.push((function.span.start, format!("undefined function {}", path.join("."))));
                }
                return;
            };
            let more = usize::from(statements.contains(&function.span.start));
            if arguments.len() < wanted || arguments.len() > wanted + more {
                let problem = format!("{name}: arity mismatch: {} arguments, {wanted} expected", arguments.len());
                wrong.push((function.span.start, problem));
            }
        });
        wrong.into_iter().for_each(|(at, problem)| self.note(at, problem));
    }

    /// Rules that depend on themselves.
    fn recursion(&mut self, module: &Module) {
        let names = Names::of(module);
        let rules: BTreeSet<String> = module.rules.iter().filter_map(first_name).collect();
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rule in &module.rules {
            let Some(name) = first_name(rule) else { continue };
            let local = locals(rule);
            let used = uses.entry(name).or_default();
            each_used_term(rule, &mut |term| {
                let path: Vec<&str> = match &term.kind {
                    Kind::Var(name) => vec![name],
                    Kind::Ref(..) => ground_prefix(term),
                    _ => return,
                };
                if path.first().is_some_and(|first| !local.contains(*first)) {
                    let own = names.own(&path);
                    let first = own.split('.').next().unwrap_or("");
                    if rules.contains(first) {
                        used.insert(first.to_owned());
                    }
                }
            });
        }
        for rule in &module.rules {
            let Some(name) = first_name(rule) else { continue };
            if let Some(way) = way_back(&name, &uses) {
                self.note(rule.span.start, format!("rule {name} is recursive: {way}"));
            }
        }
    }

    /// Rules that exclude each other.
    fn rules(&mut self, module: &Module) {
        let mut defaults = BTreeSet::new();
        let mut kinds: BTreeMap<String, &'static str> = BTreeMap::new();
        for rule in &module.rules {
            let Some(path) = rule.name.path() else { continue };
            let name = path.join(".");
            if rule.is_default && !defaults.insert(name.clone()) {
                self.note(rule.span.start, format!("multiple default rules {name} found"));
            }
            let kind = match (&rule.arguments, &rule.key) {
                (Some(_), _) => "function",
                (None, Some(_)) => "set",
                (None, None) => "value",
            };
            if *kinds.entry(name.clone()).or_insert(kind) != kind {
                self.note(rule.span.start, format!("conflicting rules {name} found"));
            }
        }
        let complete: Vec<&String> = kinds.keys().collect();
        for (index, name) in complete.iter().enumerate() {
            let below = format!("{name}.");
            if let Some(other) = complete.iter().skip(index + 1).find(|other| other.starts_with(&below)) {
                let at = module
                    .rules
                    .iter()
                    .find(|rule| rule.name.path().is_some_and(|path| path.join(".") == **name));
                self.note(at.map_or(0, |rule| rule.span.start), format!("rule {name} conflicts with {other}"));
            }
        }
    }

    fn bodies(&mut self, rule: &Rule) {
        let bodies = rule.bodies.iter().chain(rule.otherwise.iter().map(|otherwise| &otherwise.body));
        bodies.for_each(|body| self.body(body));
        rule.each_term(&mut |term| {
            term.walk(&mut |term| match &term.kind {
                Kind::ArrayOf(_, body) | Kind::SetOf(_, body) | Kind::ObjectOf(_, _, body) => self.body(body),
                _ => {}
            });
        });
    }

    /// Variables that a body declares twice, or declares and does not use.
    fn body(&mut self, body: &Body) {
        let mut declared: BTreeSet<&str> = BTreeSet::new();
        for literal in body {
            match &literal.kind {
                LiteralKind::Plain(Expression::Assign { declares: true, left, .. }) => {
                    let mut names = Vec::new();
                    left.walk(&mut |term| {
                        if let Kind::Var(name) = &term.kind
                            && name != "_"
                        {
                            names.push(name.as_str());
                        }
                    });
                    for name in names {
                        if matches!(name, "input" | "data") {
                            self.note(literal.span.start, format!("variables must not shadow {name}"));
                        }
                        if !declared.insert(name) && matches!(left.kind, Kind::Var(_)) {
                            self.note(literal.span.start, format!("var {name} assigned above"));
                        }
                    }
                }
                LiteralKind::Declare(names) => {
                    for name in names {
                        if !declared.insert(name) {
                            self.note(literal.span.start, format!("var {name} declared above"));
                        } else if !uses_name(body, name) {
                            self.note(literal.span.start, format!("declared var {name} unused"));
                        }
                    }
                }
                LiteralKind::Every { body, .. } => self.body(body),
                _ => {}
            }
        }
    }
}

/// Whether a variable occurs in a body. Heads of comprehensions and rules use what their bodies declare, so those count as used.
fn uses_name(body: &Body, name: &str) -> bool {
    let mut used = false;
    for literal in body {
        literal.each_term(&mut |term| {
            term.walk(&mut |term| used |= matches!(&term.kind, Kind::Var(found) if found == name));
        });
    }
    used
}

/// The calls that are whole statements, by the place of their function.
fn statement_calls(module: &Module) -> BTreeSet<usize> {
    fn of_body(body: &Body, found: &mut BTreeSet<usize>) {
        for literal in body {
            if let LiteralKind::Plain(Expression::Term(term)) | LiteralKind::Not(Expression::Term(term)) = &literal.kind
                && let Kind::Call(function, _) = &term.kind
            {
                found.insert(function.span.start);
            }
            if let LiteralKind::Every { body, .. } = &literal.kind {
                of_body(body, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    for rule in &module.rules {
        rule.bodies.iter().for_each(|body| of_body(body, &mut found));
        rule.otherwise.iter().for_each(|otherwise| of_body(&otherwise.body, &mut found));
        rule.each_term(&mut |term| {
            term.walk(&mut |term| match &term.kind {
                Kind::ArrayOf(_, body) | Kind::SetOf(_, body) | Kind::ObjectOf(_, _, body) => of_body(body, &mut found),
                _ => {}
            });
        });
    }
    found
}

fn first_name(rule: &Rule) -> Option<String> {
    let mut name = &rule.name;
    while let Kind::Ref(head, _) = &name.kind {
        name = head;
    }
    match &name.kind {
        Kind::Var(name) => Some(name.clone()),
        _ => None,
    }
}

/// The terms of a rule but for its name.
fn each_used_term<'a>(rule: &'a Rule, visit: &mut dyn FnMut(&'a TermRef)) {
    rule.each_term(&mut |term| {
        if !std::rc::Rc::ptr_eq(term, &rule.name) {
            // A reference counts as a whole, so that `a.b` is not also `a`.
            term.walk(visit);
        }
    });
}

/// The names at the beginning of a reference.
fn ground_prefix(term: &Term) -> Vec<&str> {
    let Kind::Ref(head, rest) = &term.kind else { return Vec::new() };
    let Kind::Var(name) = &head.kind else { return Vec::new() };
    let names = rest.iter().map_while(|part| match &part.kind {
        Kind::Text(name) => Some(name.as_str()),
        _ => None,
    });
    std::iter::once(name.as_str()).chain(names).collect()
}

/// Names that are variables of the rule.
fn locals(rule: &Rule) -> BTreeSet<&str> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    fn vars<'a>(term: &'a TermRef, names: &mut BTreeSet<&'a str>) {
        term.walk(&mut |term| {
            if let Kind::Var(name) = &term.kind {
                names.insert(name);
            }
        });
    }
    fn of_body<'a>(body: &'a Body, names: &mut BTreeSet<&'a str>) {
        for literal in body {
            match &literal.kind {
                LiteralKind::Declare(declared) => names.extend(declared.iter().map(String::as_str)),
                LiteralKind::Some(member) => {
                    if let Kind::Member(key, value, _) = &member.kind {
                        key.iter().chain([value]).for_each(|term| vars(term, names));
                    }
                }
                LiteralKind::Every { names: bound, body, .. } => {
                    bound.iter().for_each(|term| vars(term, names));
                    of_body(body, names);
                }
                LiteralKind::Plain(Expression::Assign { declares: true, left, .. }) => vars(left, names),
                _ => {}
            }
        }
    }
    rule.arguments.iter().flatten().for_each(|argument| vars(argument, &mut names));
    for body in rule.bodies.iter().chain(rule.otherwise.iter().map(|otherwise| &otherwise.body)) {
        of_body(body, &mut names);
    }
    rule.each_term(&mut |term| {
        term.walk(&mut |term| match &term.kind {
            Kind::ArrayOf(_, body) | Kind::SetOf(_, body) | Kind::ObjectOf(_, _, body) => of_body(body, &mut names),
            _ => {}
        });
    });
    names
}

/// A way from a rule to itself.
fn way_back(name: &str, uses: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut pending = vec![name];
    while let Some(from) = pending.pop() {
        for to in uses.get(from).into_iter().flatten() {
            if to == name {
                let mut way = vec![name, from];
                let mut at = from;
                while at != name {
                    at = before.get(at).copied()?;
                    way.push(at);
                }
                way.reverse();
                way.dedup();
                let way = if way.len() == 1 { vec![name, name] } else { way };
                return Some(way.join(" -> "));
            }
            if !before.contains_key(to.as_str()) {
                before.insert(to, from);
                pending.push(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &str) -> Vec<String> {
        let text = format!("package policy\n{rules}\n");
        let problems = problems(&text).unwrap();
        problems
            .iter()
            .map(|problem| format!("{}: {}", problem.line, problem.problem))
            .collect()
    }

    #[test]
    fn what_the_compiler_of_opa_refuses_is_found() {
        for (rules, problem) in [
            ("x := count()", "2: count: arity mismatch: 0 arguments, 1 expected"),
            ("x := lower(\"a\", \"b\")", "2: lower: arity mismatch"),
            ("f(a) := a\nx := f(1, 2)", "3: f: arity mismatch: 2 arguments, 1 expected"),
            ("f(a) := a\nx := data.policy.f()", "3: f: arity mismatch"),
            ("f(a) := a\nf(a, b) := b", "3: conflicting rules f"),
            ("x := data.policy.f(1)", "2: undefined function data.policy.f"),
            ("x := x", "2: rule x is recursive: x -> x"),
            (
                "x := y\ny if { z }\nz if { data.policy.x }",
                "2: rule x is recursive: x -> y -> z -> x",
            ),
            ("x := [1 | y]\ny := $\"{x}\"", "2: rule x is recursive"),
            ("default x := 1\ndefault x := 2", "3: multiple default rules x found"),
            ("x := 1\nx(a) := a", "3: conflicting rules x found"),
            ("x contains 1\nx := 2", "3: conflicting rules x found"),
            ("x := {\"a\": 1}\nx.a := 2", "2: rule x conflicts with x.a"),
            ("x if { y := 1; y := 2 }", "2: var y assigned above"),
            ("x if { some y; true }", "2: declared var y unused"),
            ("x if { input := 1 }", "2: variables must not shadow input"),
            ("x := lower(1)", "2: lower: argument 1 is number, string expected"),
            ("x := 1 + \"a\"", "2: +: operand 2 is string, number expected"),
            ("y := \"a\"\nx := abs(y)", "3: abs: argument 1 is string, number expected"),
            (
                "x if { y := [1]; startswith(y, \"a\") }",
                "2: startswith: argument 1 is array, string expected",
            ),
            (
                "x := count(count([1]))",
                "2: count: argument 1 is number, any<string, array, object, set> expected",
            ),
            ("x := {1} & [1]", "2: &: operand 2 is array, set expected"),
            ("y := [{\"a\": 1}]\nx := y[0].b", "3: undefined reference into y"),
            ("y := [1]\nx := y.a", "3: undefined reference into y"),
            ("y := \"a\"\nx := y.b", "3: undefined reference into y"),
            ("x if { y := 1; y.b }", "2: undefined reference into y"),
            ("x if 1 = \"a\"", "2: match error: number and string"),
        ] {
            let found = found(rules);
            assert!(found.iter().any(|found| found.starts_with(problem)), "{rules}: {found:?}");
        }
    }

    #[test]
    fn what_it_takes_is_no_problem() {
        for rules in [
            "f(a) := a\nx if f(1, y)\ny := 1",
            "x if { count([1], n); n == 1 }",
            "x if { walk([1], [_, v]); v == 1 }",
            "x if { x := 1; x == 1 }",
            "f(x) := x\nx := f(1)",
            "x := y if { y := 1 }\ny := x",
            "a.b := 1\na.c := 2\nx := a.b",
            "x := {1} - {2}\ny := 3 - 2\nz := {1} | {2}",
            "x := to_number(\"1\") + 1\ny := object.get({}, \"a\", 1) + 1",
            "x := sprintf(\"%v\", [1])\ny if { some k; input.a[k] == 1 }",
            "x := [y | some y in [1]; y > 0]\ny := [x | some x in [1]]",
            "y := [{\"a\": {\"b\": 1}}]\nx if { some i; y[i].c }\nz := y[0].a.b\nw if { y := input; y.c }",
            "x if print(1, \"a\")\nprinted := set()",
            "m[k] := v if { some k, v in {\"a\": 1} }\nm.z := 2",
        ] {
            assert_eq!(found(rules), Vec::<String>::new(), "{rules}");
        }
    }
}
