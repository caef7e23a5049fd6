//! Functions that a policy may call: its own, unless they are recursive, and pure built-ins.

use super::{KEYWORDS, SourceError, is_call, line, starts_statement, tokens::Token};
use std::collections::{BTreeMap, BTreeSet};

/// Built-in functions that a policy may call. They depend only on their arguments: not on network, clock, random numbers, host or
/// interpreter. Any other is refused by name.
pub(super) const BUILTINS: &[&str] = &[
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

pub(super) fn refuse_forbidden(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
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

/// Refuses recursive functions, which would exhaust the interpreter's stack. The interpreter itself detects recursive rules.
pub(super) fn refuse_recursion(tokens: &[Token<'_>]) -> Result<(), SourceError> {
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
    // A function that calls only functions known to end also ends. Those are removed until none is left; the rest is recursive.
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

/// The names by which the text can refer to its own package: in full, and as imported.
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
