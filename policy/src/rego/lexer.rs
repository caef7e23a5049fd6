//! The tokens of Rego, as OPA's scanner finds them.

use super::SyntaxError;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A name or a keyword.
    Name,
    Number,
    /// A string in quotes or in backquotes.
    Text,
    /// A part of a template string, with its delimiters; `last` if none follows.
    Template {
        last: bool,
    },
    /// An operator or a bracket, one or two characters.
    Sign(&'static str),
    End,
}

/// A token, its place, and what precedes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
    /// A blank, a comment or an end of line stands before it.
    pub(super) apart: bool,
    /// An end of line stands before it.
    pub(super) new_line: bool,
}

/// The tokens of a text, the end included.
#[derive(Debug)]
pub(super) struct Lexemes {
    pub(super) list: Vec<Lexeme>,
    /// Carriage returns that end no line.
    pub(super) lone_returns: Vec<usize>,
}

const SIGNS: [&str; 26] = [
    ":=", "==", "!=", "<=", ">=", "[", "]", "{", "}", "(", ")", ",", ":", "+", "-", "*", "/", "%", "&", "|", "=", "<", ">", ";", ".", "$",
];

/// Byte order mark.
const MARK: char = '\u{feff}';

pub(super) fn lex(text: &str) -> Result<Lexemes, SyntaxError> {
    let scanner = Scanner {
        text,
        at: text.strip_prefix(MARK).map_or(0, |_| MARK.len_utf8()),
        list: Vec::with_capacity(text.len() / 6),
        lone_returns: Vec::new(),
        templates: Vec::new(),
    };
    check_characters(text)?;
    scanner.run()
}

/// Neither NUL nor a byte-order mark may stand anywhere, not even in a comment or a string; the mark may begin the text.
pub(crate) fn check_characters(text: &str) -> Result<(), SyntaxError> {
    match text.char_indices().find(|(at, c)| *c == '\0' || (*c == MARK && *at > 0)) {
        None => Ok(()),
        Some((at, '\0')) => Err(SyntaxError::new(text, at, "illegal null character")),
        Some((at, _)) => Err(SyntaxError::new(text, at, "illegal byte-order mark")),
    }
}

/// A template string whose expression is being read.
struct Template {
    raw: bool,
    /// Braces that are open inside the expression.
    braces: usize,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    list: Vec<Lexeme>,
    lone_returns: Vec<usize>,
    templates: Vec<Template>,
}

impl Scanner<'_> {
    fn run(mut self) -> Result<Lexemes, SyntaxError> {
        loop {
            let (apart, new_line) = self.blanks();
            let start = self.at;
            let token = self.token()?;
            let lexeme = Lexeme {
                token,
                start,
                end: self.at,
                apart,
                new_line,
            };
            self.list.push(lexeme);
            match token {
                Token::End if self.templates.is_empty() => {
                    return Ok(Lexemes {
                        list: self.list,
                        lone_returns: self.lone_returns,
                    });
                }
                Token::End => return Err(self.error(start, "non-terminated string")),
                Token::Template { last: false } => {}
                Token::Template { last: true } => drop(self.templates.pop()),
                _ => {}
            }
        }
    }

    fn error(&self, at: usize, problem: &str) -> SyntaxError {
        SyntaxError::new(self.text, at, problem)
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// Skips blanks and comments.
    fn blanks(&mut self) -> (bool, bool) {
        let (start, mut new_line) = (self.at, false);
        while let Some(byte) = self.byte(0) {
            match byte {
                b' ' | b'\t' => {}
                b'\n' => new_line = true,
                b'\r' if self.byte(1) == Some(b'\n') => {}
                b'\r' => self.lone_returns.push(self.at),
                b'#' => {
                    let rest = self.text.get(self.at..).unwrap_or("");
                    self.at += rest.find('\n').unwrap_or(rest.len());
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
        (self.at > start, new_line)
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        match self.byte(0) {
            None => Ok(Token::End),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
                self.skip(|b| b.is_ascii_alphanumeric() || b == b'_');
                Ok(Token::Name)
            }
            Some(b'0'..=b'9') => self.number(),
            Some(b'"') => {
                self.at += 1;
                self.quoted(false).map(|_| Token::Text)
            }
            Some(b'`') => {
                self.at += 1;
                self.raw(false).map(|_| Token::Text)
            }
            Some(b'$') if matches!(self.byte(1), Some(b'"' | b'`')) => {
                let raw = self.byte(1) == Some(b'`');
                self.at += 2;
                self.templates.push(Template { raw, braces: 0 });
                self.template_part(raw)
            }
            Some(b'}') if self.templates.last().is_some_and(|template| template.braces == 0) => {
                let raw = self.templates.last().is_some_and(|template| template.raw);
                self.at += 1;
                self.template_part(raw)
            }
            Some(b'$') => Err(self.error(start, "illegal $ character")),
            Some(_) => {
                let rest = self.text.get(self.at..).unwrap_or("");
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign = *sign.ok_or_else(|| self.error(start, "illegal token"))?;
                self.at += sign.len();
                match (sign, self.templates.last_mut()) {
                    ("{", Some(template)) => template.braces += 1,
                    ("}", Some(template)) => template.braces = template.braces.saturating_sub(1),
                    _ => {}
                }
                Ok(Token::Sign(sign))
            }
        }
    }

    fn skip(&mut self, allowed: impl Fn(u8) -> bool) -> usize {
        let start = self.at;
        while self.byte(0).is_some_and(&allowed) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        self.skip(|b| b.is_ascii_digit());
        if self.byte(0) == Some(b'.') {
            self.at += 1;
            if self.skip(|b| b.is_ascii_digit()) == 0 {
                return Err(self.error(start, "expected fraction"));
            }
        }
        if matches!(self.byte(0), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(0), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.skip(|b| b.is_ascii_digit()) == 0 {
                return Err(self.error(start, "expected exponent"));
            }
        }
        if self.byte(0).is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') {
            return Err(self.error(start, "illegal number format"));
        }
        Ok(Token::Number)
    }

    /// Reads up to the end of a string in quotes; in a template also to the next expression. Returns whether the string ended.
    fn quoted(&mut self, template: bool) -> Result<bool, SyntaxError> {
        loop {
            let at = self.at;
            self.at += 1;
            match self.text.as_bytes().get(at) {
                None | Some(b'\n') => return Err(self.error(at, "non-terminated string")),
                Some(b'"') => return Ok(true),
                Some(b'{') if template => return Ok(false),
                Some(b'\\') => {
                    match self.byte(0) {
                        Some(b'\\' | b'"' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        Some(b'{') if template => {}
                        Some(b'u') if hex(self.text, self.at + 1).is_some() => self.at += 4,
                        _ => return Err(self.error(at, "illegal escape sequence")),
                    }
                    self.at += 1;
                }
                Some(_) => {}
            }
        }
    }

    /// As [`Self::quoted`], for a string in backquotes.
    fn raw(&mut self, template: bool) -> Result<bool, SyntaxError> {
        loop {
            let at = self.at;
            self.at += 1;
            match self.text.as_bytes().get(at) {
                None => return Err(self.error(at, "non-terminated string")),
                Some(b'`') => return Ok(true),
                Some(b'{') if template => return Ok(false),
                Some(b'\\') if template && self.byte(0) == Some(b'{') => self.at += 1,
                Some(_) => {}
            }
        }
    }

    fn template_part(&mut self, raw: bool) -> Result<Token, SyntaxError> {
        let last = if raw { self.raw(true)? } else { self.quoted(true)? };
        Ok(Token::Template { last })
    }
}

/// Four hexadecimal digits at an offset.
pub(super) fn hex(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 4)?;
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())?
}
