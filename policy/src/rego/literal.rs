//! Values of literals, as OPA and Go's JSON reader understand them.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;

use super::lexer::{Lexeme, Token, hex, lex};

/// Largest binary exponent of a number, either way; OPA has the same limit.
const MAX_EXPONENT: f64 = 1e5;

/// The value of a string with its quotes or backquotes; `None` if OPA refuses it.
///
/// Without a backslash every character stands for itself, control characters included. With one the string must be a JSON string,
/// and half a surrogate pair becomes U+FFFD.
pub(crate) fn text(quoted: &str) -> Option<String> {
    match quoted.strip_prefix('`') {
        Some(raw) => raw.strip_suffix('`').map(str::to_owned),
        None => unquoted(quoted.strip_prefix('"')?.strip_suffix('"')?),
    }
}

/// The value of a string without its quotes.
pub(crate) fn unquoted(inner: &str) -> Option<String> {
    if !inner.contains('\\') {
        return Some(inner.to_owned());
    }
    let mut value = String::with_capacity(inner.len());
    let mut at = 0;
    while let Some(next) = inner.get(at..).and_then(|rest| rest.chars().next()) {
        at += next.len_utf8();
        match next {
            '\0'..='\x1f' => return None,
            '\\' => {
                let escape = *inner.as_bytes().get(at)?;
                at += 1;
                value.push(match escape {
                    b'"' | b'\\' | b'/' => char::from(escape),
                    b'b' => '\x08',
                    b'f' => '\x0c',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'u' => {
                        let unit = hex(inner, at)?;
                        at += 4;
                        let low = inner
                            .get(at..at + 2)
                            .filter(|start| *start == "\\u")
                            .and_then(|_| hex(inner, at + 2));
                        let pair = low.and_then(|low| char::decode_utf16([unit, low]).next()?.ok().filter(|c| c.len_utf16() == 2));
                        if pair.is_some() {
                            at += 6;
                        }
                        pair.unwrap_or_else(|| char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER))
                    }
                    _ => return None,
                });
            }
            plain => value.push(plain),
        }
    }
    Some(value)
}

/// Why OPA refuses a number; `None` if it does not.
pub(crate) fn number_problem(number: &str) -> Option<&'static str> {
    let plain = number.strip_prefix('-').unwrap_or(number);
    if plain.starts_with('0') && !matches!(plain.as_bytes().get(1), None | Some(b'.' | b'e' | b'E')) {
        return Some("expected number without leading zero");
    }
    let (mantissa, exponent) = plain.split_once(['e', 'E']).unwrap_or((plain, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.contains('.') || fraction.contains('.') {
        return Some("invalid float");
    }
    let digits = format!("{whole}{fraction}");
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    if zeros == digits.len() {
        return None;
    }
    // Precise enough: the limit is arbitrary.
    let exponent: f64 = exponent.parse().unwrap_or(f64::INFINITY);
    let power = exponent + whole.len() as f64 - zeros as f64;
    (power.abs() * std::f64::consts::LOG2_10 > MAX_EXPONENT).then_some("number too big")
}

/// The value of a number that OPA takes; `None` if the interpreter cannot represent it.
pub(crate) fn number(text: &str) -> Option<Value> {
    if number_problem(text).is_some() {
        return None;
    }
    Value::from_numeric_string(text)
        .ok()
        .filter(|value| matches!(value, Value::Number(_)))
}

/// Deepest nesting of a constant.
const MAX_DEPTH: usize = 512;

/// The value of a constant: lists and objects of literals. `None` for anything else.
pub(crate) fn constant(literal: &str) -> Option<Value> {
    let lexemes = lex(literal).ok()?;
    let mut reader = Reader {
        text: literal,
        lexemes: lexemes.list.iter(),
    };
    let value = reader.value(0)?;
    (reader.next()?.token == Token::End).then_some(value)
}

struct Reader<'t, 'l> {
    text: &'t str,
    lexemes: std::slice::Iter<'l, Lexeme>,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Option<Lexeme> {
        self.lexemes.next().copied()
    }

    fn is_next(&self, token: Token) -> bool {
        self.lexemes.clone().next().is_some_and(|next| next.token == token)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let lexeme = self.next()?;
        let word = self.text.get(lexeme.start..lexeme.end)?;
        match lexeme.token {
            Token::Text => text(word).map(Value::from),
            Token::Number => number(word),
            Token::Sign("-") => {
                let digits = self.next().filter(|next| next.token == Token::Number)?;
                number(&format!("-{}", self.text.get(digits.start..digits.end)?))
            }
            Token::Name => match word {
                "null" => Some(Value::Null),
                "true" | "false" => Some(Value::Bool(word == "true")),
                _ => None,
            },
            Token::Sign("[") => self.items("]", depth).map(Value::from),
            Token::Sign("{") => self.object_or_set(depth),
            _ => None,
        }
    }

    fn items(&mut self, end: &'static str, depth: usize) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        while !self.is_next(Token::Sign(end)) {
            items.push(self.value(depth + 1)?);
            if self.is_next(Token::Sign(",")) {
                self.next();
            } else if !self.is_next(Token::Sign(end)) {
                return None;
            }
        }
        self.next();
        Some(items)
    }

    fn object_or_set(&mut self, depth: usize) -> Option<Value> {
        let mut fields = BTreeMap::new();
        loop {
            if self.is_next(Token::Sign("}")) {
                self.next();
                return Some(Value::from(fields));
            }
            let key = self.value(depth + 1)?;
            if fields.is_empty() && !self.is_next(Token::Sign(":")) {
                if self.is_next(Token::Sign(",")) {
                    self.next();
                } else if !self.is_next(Token::Sign("}")) {
                    // What follows is no further item but, in a body, a suffix of the first or a statement of its own.
                    return None;
                }
                let mut items: BTreeSet<Value> = self.items("}", depth)?.into_iter().collect();
                items.insert(key);
                return Some(Value::from(items));
            }
            self.next().filter(|next| next.token == Token::Sign(":"))?;
            // Of two equal keys the last counts.
            fields.insert(key, self.value(depth + 1)?);
            match self.lexemes.clone().next()?.token {
                Token::Sign(",") => drop(self.next()),
                Token::Sign("}") => {}
                _ => return None,
            }
        }
    }
}
