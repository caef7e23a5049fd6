//! The normal form of a module: the same rules in the grammar of the interpreter's parser. Lines keep their numbers.

use super::KEYWORDS;
use super::ast::{Body, Kind, Literal, Module, Rule, Term, TermRef};
use super::positions::Edit;

/// Lists and objects nested as deep as this become calls: the interpreter's parser reads the first item of a list twice.
/// Such a call is no pattern, so that it begins deeper where there may be one.
const CALLS_FROM_DEPTH: usize = 6;
/// As [`CALLS_FROM_DEPTH`], in the value of a rule that is higher than this.
const CALLS_IN_VALUES_FROM_DEPTH: usize = 2;
const MIN_HEIGHT: usize = 8;
/// Parentheses nested as deep as this become calls: the interpreter's parser has a limit of 32.
const PARENS_TO_DEPTH: usize = 16;
/// Numbers longer than this are handed over as text.
const MAX_NUMBER_BYTES: usize = 300;

/// The field of an object's first pair, which `casemate_object` leaves out.
pub(crate) const FIRST_FIELD: &str = "\u{1}casemate";

/// A built-in function that yields many values.
const WALK: &str = "walk";

/// The name under which the interpreter knows a package that is named as a keyword.
///
/// Its parser takes no keyword there. Fragments cannot declare the other name: their namespaces do not begin with `casemate_`.
pub(crate) fn package_name(name: &str) -> String {
    if KEYWORDS.contains(&name) {
        format!("casemate_package_{name}")
    } else {
        name.to_owned()
    }
}

/// The edits that make the normal form of `text`.
pub(crate) fn edits(text: &str, module: &Module) -> Vec<Edit> {
    let mut writer = Writer {
        text,
        edits: Vec::new(),
        depth: 0,
        calls_from: CALLS_FROM_DEPTH,
        parens: 0,
        has_own_walk: module.imports.iter().any(|import| import.name() == WALK)
            || module
                .rules
                .iter()
                .any(|rule| rule.name.path().is_some_and(|path| path.first().is_some_and(|name| *name == WALK))),
    };
    writer.module(module);
    writer.edits
}

struct Writer<'a> {
    text: &'a str,
    edits: Vec<Edit>,
    /// Enclosing lists and objects.
    depth: usize,
    /// The depth from which they are calls.
    calls_from: usize,
    /// Enclosing parentheses.
    parens: usize,
    /// The module has a function of its own of this name.
    has_own_walk: bool,
}

impl Writer<'_> {
    fn replace(&mut self, range: std::ops::Range<usize>, text: impl Into<String>) {
        self.edits.push(Edit { range, text: text.into() });
    }

    fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.replace(at..at, text);
    }

    fn module(&mut self, module: &Module) {
        if self.text.starts_with('\u{feff}') {
            self.replace(0..'\u{feff}'.len_utf8(), "");
        }
        for at in &module.lone_returns {
            self.replace(*at..at + 1, " ");
        }
        for at in &module.leading_commas {
            self.replace(*at..at + 1, " ");
        }
        // Imports of words need no import here. Others must stand before the first rule, so late ones go behind the package.
        let mut late = String::new();
        for import in &module.imports {
            if import.is_of_language() {
                self.replace(import.span.clone(), "");
                continue;
            }
            let renamed = self.import(import);
            if import.late {
                late.push(' ');
                late.push_str(&renamed);
                self.replace(import.span.clone(), "");
            } else if self.text.get(import.span.clone()) != Some(renamed.as_str()) {
                self.replace(import.span.clone(), renamed);
            }
        }
        let first = module.package.first().map_or("", String::as_str);
        let renamed = package_name(first);
        if renamed != first {
            self.replace(module.package_span.start..module.package_span.start + first.len(), renamed);
        }
        if !late.is_empty() {
            self.insert(module.package_span.end, late);
        }
        module.rules.iter().for_each(|rule| self.rule(rule));
    }

    /// An import as the interpreter takes it.
    fn import(&self, import: &super::ast::Import) -> String {
        let mut path: Vec<String> = import.path.clone();
        if import.path.first().is_some_and(|root| root == "data")
            && let Some(package) = path.get_mut(1)
        {
            *package = package_name(package);
        }
        let plain =
            |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
        let mut text = format!("import {}", path.first().map_or("", String::as_str));
        for name in path.iter().skip(1) {
            if plain(name) && !name.is_empty() {
                text.push('.');
                text.push_str(name);
            } else {
                text.push_str(&format!("[{}]", quoted(name)));
            }
        }
        let renamed = path.last() != import.path.last();
        match &import.alias {
            Some(alias) => text.push_str(&format!(" as {alias}")),
            None if renamed => text.push_str(&format!(" as {}", import.name())),
            None => {}
        }
        text
    }

    fn rule(&mut self, rule: &Rule) {
        self.term(&rule.name);
        // A blank is allowed in a head before the first part of the name, and before the arguments.
        if let Kind::Ref(head, rest) = &rule.name.kind
            && let Some(first) = rest.first()
        {
            let gap = self.text.get(head.span.end..first.span.start).unwrap_or("");
            let blanks = gap.len() - gap.trim_start().len();
            if blanks > 0 && !gap.get(..blanks).unwrap_or("").contains(['\n', '#']) {
                self.replace(head.span.end..head.span.end + blanks, "");
            }
        }
        rule.arguments.iter().flatten().for_each(|argument| self.term(argument));
        rule.key.iter().for_each(|term| self.term(term));
        if let Some(value) = &rule.value {
            self.with_calls_from(
                if value.height > MIN_HEIGHT {
                    CALLS_IN_VALUES_FROM_DEPTH
                } else {
                    CALLS_FROM_DEPTH
                },
                |writer| writer.term(value),
            );
        }
        let is_fact = rule.arguments.is_some() && rule.value.is_none() && rule.bodies.is_empty() && !rule.is_default;
        if is_fact {
            // The next rule may begin directly behind the head.
            self.insert(rule.head_end, " := true ");
        }
        rule.bodies.iter().for_each(|body| self.body(body));
        for otherwise in &rule.otherwise {
            otherwise.value.iter().for_each(|value| self.term(value));
            self.body(&otherwise.body);
        }
    }

    fn body(&mut self, body: &Body) {
        body.iter().for_each(|literal| self.literal(literal));
    }

    fn literal(&mut self, literal: &Literal) {
        literal.each_term(&mut |term| self.term(term));
    }

    fn term(&mut self, term: &TermRef) {
        let Term { kind, span, .. } = &**term;
        match kind {
            Kind::Text(value) => self.string(span, value),
            Kind::Number(number) => self.number(span, number),
            Kind::Literal => {
                let literal = self.text.get(span.clone()).unwrap_or("");
                // The lines within the call: a suffix on a later line than its term would be another statement.
                let lines = "\n".repeat(literal.matches('\n').count());
                let call = format!("casemate_literal({lines}{})", quoted(literal));
                self.replace(span.clone(), call);
            }
            Kind::Template(parts) => self.template(parts),
            Kind::Ref(head, rest) => {
                self.reference(head, rest);
            }
            Kind::Call(function, arguments)
                if !self.has_own_walk && arguments.len() == 1 && function.path().is_some_and(|path| path == [WALK]) =>
            {
                // One pair after the other: the interpreter yields them only to a second argument.
                self.insert(span.start, "casemate_");
                self.insert(span.end, "[_]");
                term.each_child(&mut |child| self.term(child));
            }
            Kind::Infix("-", left, right) => {
                // Without a blank the interpreter reads a negative number, and no operator of higher rank behind it.
                let before = right.span.start.checked_sub(1).and_then(|at| self.text.as_bytes().get(at));
                if before == Some(&b'-') {
                    self.insert(right.span.start, " ");
                }
                self.term(left);
                self.term(right);
            }
            Kind::Parens(inner) => {
                let suffix = self.text.as_bytes().get(span.end).is_some_and(|byte| matches!(byte, b'.' | b'['));
                if suffix || self.parens >= PARENS_TO_DEPTH {
                    self.insert(span.start, "casemate_same");
                }
                self.parens += 1;
                self.term(inner);
                self.parens -= 1;
            }
            Kind::Array(items) if self.depth >= self.calls_from && !items.is_empty() => {
                self.collection(term, "casemate_list([0, ", "])");
            }
            Kind::Set(items) if self.depth >= self.calls_from && !items.is_empty() => {
                self.collection(term, "casemate_set([0, ", "])");
            }
            Kind::Object(pairs) if self.depth >= self.calls_from && !pairs.is_empty() => {
                let open = format!("casemate_object({{{}: 0, ", quoted(FIRST_FIELD));
                self.collection(term, &open, "})");
            }
            Kind::ArrayOf(..) | Kind::SetOf(..) | Kind::ObjectOf(..) => {
                self.with_calls_from(CALLS_FROM_DEPTH, |writer| term.each_child(&mut |child| writer.term(child)));
            }
            Kind::Array(_) | Kind::Set(_) | Kind::Object(_) => {
                self.depth += 1;
                term.each_child(&mut |child| self.term(child));
                self.depth -= 1;
            }
            _ => term.each_child(&mut |child| self.term(child)),
        }
    }

    fn with_calls_from(&mut self, depth: usize, write: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.calls_from, depth);
        write(self);
        self.calls_from = before;
    }

    /// A list as the argument of a function: what stands behind a comma is parsed once.
    fn collection(&mut self, term: &TermRef, open: &str, close: &str) {
        let span = term.span.clone();
        self.replace(span.start..span.start + 1, open);
        self.replace(span.end - 1..span.end, close);
        self.depth += 1;
        term.each_child(&mut |child| self.term(child));
        self.depth -= 1;
    }

    fn reference(&mut self, head: &TermRef, rest: &[TermRef]) {
        self.term(head);
        let package = rest.first().filter(|_| matches!(&head.kind, Kind::Var(name) if name == "data"));
        for (index, part) in rest.iter().enumerate() {
            match (&part.kind, package) {
                (Kind::Text(name), Some(_)) if index == 0 && package_name(name) != *name => {
                    let renamed = package_name(name);
                    let is_name = !self.text.get(part.span.clone()).unwrap_or("").starts_with(['"', '`']);
                    self.replace(part.span.clone(), if is_name { renamed } else { quoted(&renamed) });
                }
                // A name behind a dot is no string.
                (Kind::Text(_), _) if !self.text.get(part.span.clone()).unwrap_or("").starts_with(['"', '`']) => {}
                _ => self.term(part),
            }
        }
    }

    /// A string that is no JSON string, or means something else as one.
    fn string(&mut self, span: &std::ops::Range<usize>, value: &str) {
        let written = self.text.get(span.clone()).unwrap_or("");
        if written.starts_with('"') && serde_json::from_str::<String>(written).ok().as_deref() != Some(value) {
            self.replace(span.clone(), quoted(value));
        }
    }

    fn number(&mut self, span: &std::ops::Range<usize>, number: &str) {
        let known = number.len() <= MAX_NUMBER_BYTES && serde_json::from_str::<serde_json::Value>(number).is_ok();
        if !known {
            self.replace(span.clone(), format!("casemate_literal({})", quoted(number)));
        } else if self.text.get(span.clone()) != Some(number) {
            self.replace(span.clone(), number.to_owned());
        }
    }

    /// Each expression becomes the set of its values: empty if it is undefined.
    fn template(&mut self, parts: &[super::ast::Part]) {
        for (index, part) in parts.iter().enumerate() {
            let open = if index == 0 { "casemate_template([" } else { "}, " };
            // As for constants.
            let lines = "\n".repeat(self.text.get(part.span.clone()).map_or(0, |text| text.matches('\n').count()));
            let mut text = format!("{open}{lines}{}", quoted(&part.text));
            match &part.expression {
                Some(expression) => {
                    let local = format!("casemate_part_{}", part.span.start);
                    text.push_str(&format!(", {{{local} | {local} := "));
                    self.replace(part.span.clone(), text);
                    self.literal(expression);
                }
                None => {
                    text.push_str("])");
                    self.replace(part.span.clone(), text);
                }
            }
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    // OPA takes a byte-order mark as an escape, but not as it is.
    serde_json::Value::from(text).to_string().replace('\u{feff}', "\\ufeff")
}
