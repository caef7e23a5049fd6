//! Parses the constants of a text: rules `NAME := [...]` or `NAME := {...}` of literals only.

use super::{starts_statement, tokens::Token};
use crate::rego::literal;
use regorus::Value;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Shortest constant that is extracted, in bytes.
const MIN_CONSTANT_BYTES: usize = 128;
/// Deepest nesting of a constant; the interpreter's parser has the same limit.
const MAX_DEPTH: usize = 32;

/// Values by their text. Generated lists repeat the same text thousands of times; it is parsed and stored once.
pub(super) type Known<'a> = HashMap<&'a str, Value>;

/// A rule `NAME := CONSTANT` that begins at the token: the value and its position.
pub(super) fn constant<'a>(text: &'a str, tokens: &[Token<'a>], index: usize, known: &mut Known<'a>) -> Option<(Value, Range<usize>)> {
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
    // The line ends here, and the next one does not continue this rule.
    let alone = matches!(rest.first(), None | Some(Token::Newline { .. }));
    let goes_on = matches!(
        rest.iter().find(|token| !matches!(token, Token::Newline { .. })),
        Some(Token::Path("else" | "if" | "with" | "in" | "as", _) | Token::Other(..) | Token::Open(..))
    );
    (alone && !goes_on && end - start >= MIN_CONSTANT_BYTES).then_some((value, *start..end + 1))
}

/// A parser of constants; it stops at anything else.
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

    /// The text of a list or object without nested ones, and the number of tokens up to its end.
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
        let value = Value::from(literal::text(literal)?);
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

    /// A comma, or the closing bracket as the next token.
    fn separator(&mut self, end: u8) -> Option<()> {
        match self.peek()? {
            Token::Other(b',', _) => self.next().map(|_| ()),
            Token::Close(close, _) if *close == end => Some(()),
            _ => None,
        }
    }
}

fn whole_number(digits: &str) -> Option<Value> {
    let plain = digits == "0" || !digits.starts_with('0');
    match digits.parse::<i64>() {
        _ if !plain => None,
        Ok(number) => Some(Value::from(number)),
        // `RLIM_INFINITY` exceeds `i64`.
        Err(_) => digits.parse::<u64>().ok().map(Value::from),
    }
}
