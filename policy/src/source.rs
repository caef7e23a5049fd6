//! A look at Rego text before the interpreter gets it: what is refused outright, and large constants taken out of its way.
//!
//! Policies made by tools are a few long lists and some short rules. The interpreter would evaluate such a list anew for every
//! decision; here each becomes a value once, and a call that gives the value takes its place in the text. Lines keep their numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use regorus::Value;
use thiserror::Error;

mod tokens;

use tokens::{Token, tokens};

/// Shortest constant worth taking out, in bytes.
const MIN_CONSTANT_BYTES: usize = 128;
/// Deepest nesting of a constant; the interpreter's own parser allows no more either.
const MAX_DEPTH: usize = 32;

/// Functions a policy may call beside its own: what depends on nothing but its arguments. No network, no clock, no chance, nothing of
/// the host or the interpreter; what is not in this list is refused by name.
pub(crate) const BUILTINS: &[&str] = &[
    "abs",
    "array.concat",
    "array.reverse",
    "array.slice",
    "bits.and",
    "bits.lsh",
    "bits.negate",
    "bits.or",
    "bits.rsh",
    "bits.xor",
    "ceil",
    "concat",
    "contains",
    "count",
    "endswith",
    "floor",
    "format_int",
    "indexof",
    "indexof_n",
    "intersection",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "json.filter",
    "json.is_valid",
    "json.marshal",
    "json.remove",
    "json.unmarshal",
    "lower",
    "max",
    "min",
    "numbers.range",
    "numbers.range_step",
    "object.filter",
    "object.get",
    "object.keys",
    "object.remove",
    "object.subset",
    "object.union",
    "object.union_n",
    "print",
    "product",
    "regex.find_n",
    "regex.is_valid",
    "regex.match",
    "regex.replace",
    "regex.split",
    "regex.template_match",
    "replace",
    "round",
    "semver.compare",
    "semver.is_valid",
    "set",
    "sort",
    "split",
    "sprintf",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "strings.count",
    "strings.replace_n",
    "strings.reverse",
    "substring",
    "sum",
    "to_number",
    "trace",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "type_name",
    "union",
    "units.parse",
    "units.parse_bytes",
    "upper",
];

/// Most operators, indices and dots in one rule: the interpreter's parser and evaluation recurse over them.
const MAX_OPERATORS: usize = 512;
/// Most signs in a row, which nest without brackets.
const MAX_SIGNS: usize = 8;

/// Most work that brackets within brackets may make. The interpreter's parser reads what stands first in a bracket twice, so that each
/// level there doubles the time: twenty of them are a minute.
const MAX_REPEATED: u64 = 1 << 16;
/// Brackets read no more often than this cost nothing worth counting.
const MIN_REPEATED: u64 = 16;

/// Words that cannot name a rule.
const KEYWORDS: &[&str] = &[
    "as", "contains", "data", "default", "else", "every", "false", "if", "import", "in", "input", "not", "null", "package", "some", "true",
    "with",
];

/// Why a text is not handed to the interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SourceError {
    #[error("line {line}: {name} is not available to policies")]
    Forbidden { name: String, line: usize },
    #[error("rule {0} is recursive")]
    Recursive(String),
    #[error("line {0}: unterminated string or unbalanced bracket")]
    Unbalanced(usize),
    #[error("line {0}: the expression is too long")]
    TooLong(usize),
    #[error("line {0}: brackets nest too deep")]
    TooDeep(usize),
}

/// A text for the interpreter.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) text: String,
    /// Values of the calls `casemate_constant(N)` in it.
    pub(crate) constants: Vec<Value>,
    /// Names the text uses under `data.metadata`.
    pub(crate) metadata: BTreeSet<String>,
}

/// Whether the interpreter's parser comes to an end with `text` before long.
pub(crate) fn check_shape(text: &str) -> Result<(), SourceError> {
    shape(text).map(drop)
}

fn shape(text: &str) -> Result<Vec<Token<'_>>, SourceError> {
    let tokens = tokens(text).map_err(|at| SourceError::Unbalanced(line(text, at)))?;
    refuse_long_expressions(text, &tokens)?;
    refuse_deep_brackets(text, &tokens)?;
    Ok(tokens)
}

/// Whether `text` may be handed to the interpreter as it is.
pub(crate) fn check(text: &str) -> Result<(), SourceError> {
    let tokens = shape(text)?;
    refuse_forbidden(text, &tokens)?;
    refuse_recursion(&tokens)
}

/// Looks at `text`.
pub(crate) fn read(text: &str) -> Result<Source, SourceError> {
    let tokens = tokens(text).map_err(|at| SourceError::Unbalanced(line(text, at)))?;
    refuse_long_expressions(text, &tokens)?;
    refuse_forbidden(text, &tokens)?;
    refuse_recursion(&tokens)?;
    let mut source = Source {
        metadata: metadata_names(&tokens),
        ..Source::default()
    };
    let mut copied = 0;
    let mut known = Known::default();
    for index in 0..tokens.len() {
        let Some((value, range)) = constant(text, &tokens, index, &mut known) else {
            continue;
        };
        source.text.push_str(text.get(copied..range.start).unwrap_or(""));
        source.text.push_str(&format!("casemate_constant({})", source.constants.len()));
        let lines = text.get(range.clone()).unwrap_or("").matches('\n').count();
        source.text.extend(std::iter::repeat_n('\n', lines));
        source.constants.push(value);
        copied = range.end;
    }
    source.text.push_str(text.get(copied..).unwrap_or(""));
    check_shape(&source.text)?;
    Ok(source)
}

fn is_call(tokens: &[Token<'_>], index: usize) -> bool {
    matches!(tokens.get(index + 1), Some(Token::Open(b'(', _)))
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes()
        .get(..at)
        .unwrap_or_default()
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

fn refuse_long_expressions(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
    let (mut operators, mut signs) = (0, 0);
    for (index, token) in tokens.iter().enumerate() {
        if starts_statement(tokens, index) {
            operators = 0;
        }
        let at = match token {
            Token::Other(b'-', at) => {
                signs += 1;
                operators += 1;
                at
            }
            Token::Newline { .. } => continue,
            Token::Other(b'+' | b'*' | b'/' | b'%' | b'|' | b'&' | b'.', at) => {
                signs = 0;
                operators += 1;
                at
            }
            Token::Path(path, at) => {
                signs = 0;
                operators += path.matches('.').count();
                at
            }
            Token::Open(b'[', at) if matches!(tokens.get(index.wrapping_sub(1)), Some(Token::Close(..) | Token::Path(..))) => {
                signs = 0;
                operators += 1;
                at
            }
            Token::Other(_, at) | Token::Open(_, at) | Token::Close(_, at) | Token::Text(_, at) | Token::Number(_, at) => {
                signs = 0;
                at
            }
        };
        if operators > MAX_OPERATORS || signs > MAX_SIGNS {
            return Err(SourceError::TooLong(line(text, *at)));
        }
    }
    Ok(())
}

/// Counts how often the parser reads each bracket: once more than the one around it, where that is read twice.
fn refuse_deep_brackets(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
    struct Around {
        /// How often it is read.
        times: u64,
        /// What comes next in it is read twice as often.
        first: bool,
        /// It can hold a list, an object, a comprehension or statements, rather than arguments or an index.
        doubles: bool,
    }
    let mut around: Vec<Around> = Vec::new();
    let (mut work, mut before) = (0, None);
    for token in tokens {
        match token {
            Token::Open(open, at) => {
                let times = match around.last() {
                    Some(outer) if outer.first && outer.doubles => outer.times.saturating_mul(2),
                    Some(outer) => outer.times,
                    None => 1,
                };
                if times >= MIN_REPEATED {
                    work = times.saturating_add(work);
                }
                if work > MAX_REPEATED {
                    return Err(SourceError::TooDeep(line(text, *at)));
                }
                let index = *open == b'[' && matches!(before, Some(Token::Path(name, _)) if !KEYWORDS.contains(&name));
                let doubles = *open != b'(' && !index;
                around.push(Around {
                    times,
                    first: true,
                    doubles,
                });
            }
            Token::Close(..) => {
                around.pop();
            }
            other => {
                if let Some(inner) = around.last_mut() {
                    match other {
                        Token::Other(b',', _) => inner.first = false,
                        Token::Other(b'|' | b';', _) => inner.first = true,
                        Token::Newline { .. } if !matches!(before, Some(Token::Other(b',', _))) => inner.first = true,
                        _ => {}
                    }
                }
            }
        }
        if !matches!(token, Token::Newline { .. }) {
            before = Some(*token);
        }
    }
    Ok(())
}

fn refuse_forbidden(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
    let (own, prefixes) = (own_functions(tokens), own_prefixes(tokens));
    let mut imported = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let Token::Path(path, at) = token else { continue };
        if *path == "import"
            && let Some(Token::Path(target, _)) = tokens.get(index + 1)
        {
            imported.extend(target.rsplit('.').next());
            if let (Some(Token::Path("as", _)), Some(Token::Path(alias, _))) = (tokens.get(index + 2), tokens.get(index + 3)) {
                imported.insert(*alias);
            }
        }
        let first = path.split('.').next().unwrap_or("");
        let known = || {
            KEYWORDS.contains(&first)
                || imported.contains(first)
                || own.contains(path)
                || BUILTINS.contains(path)
                || prefixes
                    .iter()
                    .any(|prefix| path.strip_prefix(prefix.as_str()).is_some_and(|name| own.contains(name)))
        };
        if is_call(tokens, index) && !known() {
            return Err(SourceError::Forbidden {
                name: (*path).to_owned(),
                line: line(text, *at),
            });
        }
    }
    Ok(())
}

/// Functions that the text defines.
fn own_functions<'a>(tokens: &[Token<'a>]) -> BTreeSet<&'a str> {
    let defined = |index: usize| {
        let starts = starts_statement(tokens, index)
            || (matches!(
                index.checked_sub(1).and_then(|before| tokens.get(before)),
                Some(Token::Path("default", _))
            ) && starts_statement(tokens, index - 1));
        match tokens.get(index) {
            Some(Token::Path(path, _)) if starts && is_call(tokens, index) => Some(*path),
            _ => None,
        }
    };
    (0..tokens.len()).filter_map(defined).collect()
}

/// Functions that come back to themselves would exhaust the interpreter's stack. Rules that do are found by the interpreter.
fn refuse_recursion(tokens: &[Token<'_>]) -> Result<(), SourceError> {
    let mut calls: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut current = None;
    let own = own_prefixes(tokens);
    for (index, token) in tokens.iter().enumerate() {
        let Token::Path(path, _) = token else { continue };
        let name = own.iter().find_map(|prefix| path.strip_prefix(prefix.as_str())).unwrap_or(path);
        if starts_statement(tokens, index) {
            current = Some(name).filter(|_| is_call(tokens, index));
            if let Some(name) = current {
                calls.entry(name).or_default();
            }
        } else if let Some(current) = current
            && is_call(tokens, index)
        {
            calls.entry(current).or_default().insert(name);
        }
    }
    // What calls only functions that end ends; take those away until none is left or what is left never ends.
    loop {
        let ends: Vec<&str> = calls
            .iter()
            .filter(|(_, called)| !called.iter().any(|name| calls.contains_key(name)))
            .map(|(name, _)| *name)
            .collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|name| drop(calls.remove(name)));
    }
    match calls.keys().next() {
        None => Ok(()),
        Some(name) => Err(SourceError::Recursive((*name).to_owned())),
    }
}

/// How the text can refer to its own package: in full, and by the names it imports it under.
fn own_prefixes(tokens: &[Token<'_>]) -> Vec<String> {
    let Some((Token::Path("package", _), Token::Path(package, _))) = tokens.first().zip(tokens.get(1)) else {
        return Vec::new();
    };
    let full = format!("data.{package}");
    let mut prefixes = vec![format!("{full}.")];
    for window in tokens.windows(4) {
        if let [Token::Path("import", _), Token::Path(target, _), next, alias] = window
            && *target == full
        {
            let name = match (next, alias) {
                (Token::Path("as", _), Token::Path(alias, _)) => alias,
                _ => package,
            };
            prefixes.push(format!("{name}."));
        }
    }
    prefixes
}

/// Whether the token begins a rule: at the start of a line, outside every bracket, after something complete.
fn starts_statement(tokens: &[Token<'_>], index: usize) -> bool {
    index == 0
        || (matches!(tokens.get(index - 1), Some(Token::Newline { outside: true }))
            && match tokens
                .get(..index)
                .into_iter()
                .flatten()
                .rev()
                .find(|token| !matches!(token, Token::Newline { .. }))
            {
                None | Some(Token::Close(..) | Token::Text(..) | Token::Number(..)) => true,
                Some(Token::Path(word, _)) => !matches!(*word, "if" | "else" | "in" | "default" | "not" | "some" | "every" | "with" | "as"),
                Some(_) => false,
            })
}

fn metadata_names(tokens: &[Token<'_>]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let Token::Path(path, _) = token else { continue };
        let mut parts = path.split('.').skip_while(|part| *part != "metadata").skip(1);
        match (parts.next(), tokens.get(index + 1), tokens.get(index + 2)) {
            (Some(name), _, _) => {
                names.insert(name.to_owned());
            }
            (None, Some(Token::Open(b'[', _)), Some(Token::Text(text, _))) if path.ends_with("metadata") => {
                let name = text.trim_matches('"');
                if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    names.insert(name.to_owned());
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !KEYWORDS.contains(&name.as_str()));
    names
}

/// A rule `NAME := CONSTANT` that begins at the token: the value, and where it stands.
fn constant<'a>(text: &'a str, tokens: &[Token<'a>], index: usize, known: &mut Known<'a>) -> Option<(Value, std::ops::Range<usize>)> {
    let Some(Token::Path(name, at)) = tokens.get(index) else {
        return None;
    };
    let at_line_start = *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
    let assigned =
        matches!(tokens.get(index + 1), Some(Token::Other(b':', _))) && matches!(tokens.get(index + 2), Some(Token::Other(b'=', _)));
    if name.contains('.') || !at_line_start || !assigned || !starts_statement(tokens, index) {
        return None;
    }
    let Some(Token::Open(b'[' | b'{', start)) = tokens.get(index + 3) else {
        return None;
    };
    let mut reader = Reader {
        text,
        tokens: tokens.get(index + 3..)?.iter(),
        known,
    };
    let value = reader.value(0)?;
    let rest = reader.tokens.as_slice();
    let Some(Token::Close(_, end)) = tokens.get(tokens.len() - rest.len() - 1) else {
        return None;
    };
    // The line ends here, and what comes next does not go on with this rule.
    let alone = matches!(rest.first(), None | Some(Token::Newline { .. }));
    let goes_on = matches!(
        rest.iter().find(|token| !matches!(token, Token::Newline { .. })),
        Some(Token::Path("else" | "if" | "with" | "in" | "as", _) | Token::Other(..) | Token::Open(..))
    );
    (alone && !goes_on && end - start >= MIN_CONSTANT_BYTES).then_some((value, *start..end + 1))
}

/// Values by the text they were read from. Lists made by tools say the same thousands of times; here it is read and kept once.
type Known<'a> = HashMap<&'a str, Value>;

/// Reads constants; anything that is none ends the reading.
struct Reader<'r, 't, 'a> {
    text: &'a str,
    tokens: std::slice::Iter<'t, Token<'a>>,
    known: &'r mut Known<'a>,
}

impl<'t, 'a> Reader<'_, 't, 'a> {
    fn next(&mut self) -> Option<&'t Token<'a>> {
        self.tokens.find(|token| !matches!(token, Token::Newline { .. }))
    }

    fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.clone().find(|token| !matches!(token, Token::Newline { .. }))
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth >= MAX_DEPTH {
            return None;
        }
        match self.next()? {
            Token::Text(text, _) => self.text(text),
            Token::Path("true", _) => Some(Value::Bool(true)),
            Token::Path("false", _) => Some(Value::Bool(false)),
            Token::Path("null", _) => Some(Value::Null),
            Token::Number(digits, _) => whole_number(digits),
            Token::Open(open @ (b'[' | b'{'), start) => {
                let flat = self.flat(*start);
                if let Some((text, tokens)) = flat
                    && let Some(value) = self.known.get(text)
                {
                    let value = value.clone();
                    self.tokens.nth(tokens);
                    return Some(value);
                }
                let value = if *open == b'[' { self.array(depth) } else { self.object(depth) }?;
                if let Some((text, _)) = flat {
                    self.known.insert(text, value.clone());
                }
                Some(value)
            }
            _ => None,
        }
    }

    /// The text of a list or object without others in it, and the tokens ahead before its end.
    fn flat(&self, start: usize) -> Option<(&'a str, usize)> {
        let ahead = self.tokens.as_slice();
        let tokens = ahead.iter().position(|token| matches!(token, Token::Open(..) | Token::Close(..)))?;
        match ahead.get(tokens) {
            Some(Token::Close(_, end)) => Some((self.text.get(start..=*end)?, tokens)),
            _ => None,
        }
    }

    fn text(&mut self, literal: &'a str) -> Option<Value> {
        if let Some(value) = self.known.get(literal) {
            return Some(value.clone());
        }
        let value = Value::from(string(literal)?);
        self.known.insert(literal, value.clone());
        Some(value)
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut list = Vec::new();
        loop {
            if let Some(Token::Close(b']', _)) = self.peek() {
                self.next();
                return Some(Value::from(list));
            }
            list.push(self.value(depth + 1)?);
            self.separator(b']')?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut fields = BTreeMap::new();
        loop {
            if let Some(Token::Close(b'}', _)) = self.peek() {
                self.next();
                return Some(Value::from(fields));
            }
            let Token::Text(key, _) = *self.next()? else { return None };
            let Token::Other(b':', _) = self.next()? else { return None };
            let key = self.text(key)?;
            let value = self.value(depth + 1)?;
            if fields.insert(key, value).is_some() {
                return None;
            }
            self.separator(b'}')?;
        }
    }

    /// A comma, or the end ahead.
    fn separator(&mut self, end: u8) -> Option<()> {
        match self.peek()? {
            Token::Other(b',', _) => self.next().map(|_| ()),
            Token::Close(close, _) if *close == end => Some(()),
            _ => None,
        }
    }
}

/// What a string literal stands for; both kinds are told apart by their quotes.
fn string(literal: &str) -> Option<String> {
    match literal.strip_prefix('`') {
        Some(raw) => raw.strip_suffix('`').map(str::to_owned),
        None => serde_json::from_str(literal).ok(),
    }
}

fn whole_number(digits: &str) -> Option<Value> {
    let plain = digits == "0" || !digits.starts_with('0');
    match digits.parse::<i64>() {
        _ if !plain => None,
        Ok(number) => Some(Value::from(number)),
        // "Unlimited", as resource limits have it.
        Err(_) => digits.parse::<u64>().ok().map(Value::from),
    }
}

#[cfg(test)]
mod tests;
