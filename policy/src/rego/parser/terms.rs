//! Terms: literals, references, calls, collections, comprehensions and operators.

use super::super::ast::{Body, Kind, Part, TermRef};
use super::super::lexer::Token;
use super::super::literal;
use super::{Parsed, Parser};

/// Operators by how strongly they bind, weakest first.
const LEVELS: [&[&str]; 5] = [&["==", "!=", "<", ">", "<=", ">="], &["|"], &["&"], &["+", "-"], &["*", "/", "%"]];

impl Parser<'_> {
    /// A term with operators. `pair` if `key, value in collection` may stand here.
    pub(super) fn infix(&mut self, pair: bool) -> Parsed<TermRef> {
        let start = self.lexeme().start;
        let mut left = self.operators(0)?;
        if pair && self.is_sign(",") {
            let place = self.at;
            self.advance();
            match self.operators(0) {
                Ok(value) if self.is_member_sign() => {
                    self.advance();
                    let collection = self.operators(0)?;
                    left = self.term(Kind::Member(Some(left), value, collection), start);
                }
                Err(error) if error.limit => return Err(error),
                _ => self.at = place,
            }
        }
        while self.is_member_sign() {
            self.advance();
            let collection = self.operators(0)?;
            left = self.bounded(self.term(Kind::Member(None, left, collection), start))?;
        }
        Ok(left)
    }

    /// The word `in`, unless it is the first name of a reference.
    fn is_member_sign(&self) -> bool {
        self.is_word("in") && !self.names_a_reference()
    }

    fn operators(&mut self, level: usize) -> Parsed<TermRef> {
        let Some(signs) = LEVELS.get(level) else {
            return self.single();
        };
        let start = self.lexeme().start;
        let mut left = self.operators(level + 1)?;
        loop {
            let sign = match self.lexeme().token {
                Token::Sign(sign) if signs.contains(&sign) => sign,
                _ => return Ok(left),
            };
            self.advance();
            let right = self.operators(level + 1)?;
            left = self.bounded(self.term(Kind::Infix(sign, left, right), start))?;
        }
    }

    /// A term without operators.
    pub(super) fn single(&mut self) -> Parsed<TermRef> {
        let first = self.at;
        if let Some((known, behind)) = self.terms.get(&first) {
            let known = known.clone();
            self.at = *behind;
            return known;
        }
        let parsed = self.deeper(Self::parse_single);
        // What exceeds a limit here may not where it stands less deep.
        let depends_on_depth = matches!(&parsed, Err(error) if error.limit);
        if self.at > first + 1 && !depends_on_depth {
            self.terms.insert(first, (parsed.clone(), self.at));
        }
        parsed
    }

    fn parse_single(&mut self) -> Parsed<TermRef> {
        let start = self.lexeme().start;
        let head = match self.lexeme().token {
            Token::Number | Token::Sign("-" | ".") => self.number()?,
            Token::Text => {
                let value = self.string(self.lexeme());
                let value = value.ok_or_else(|| self.error("illegal string literal"))?;
                self.advance();
                self.term(Kind::Text(value), start)
            }
            Token::Template { .. } => self.template()?,
            Token::Sign(open @ ("[" | "{")) => match self.literals.get(&self.at).copied() {
                Some(behind) => {
                    self.at = behind;
                    self.term(Kind::Literal, start)
                }
                None if open == "[" => self.array()?,
                None => self.set_or_object()?,
            },
            Token::Sign("(") => {
                self.advance();
                let inner = self.infix(true)?;
                self.expect(")")?;
                self.term(Kind::Parens(inner), start)
            }
            Token::Name if !self.is_variable() && matches!(self.word(), "null" | "true" | "false") => {
                let kind = match self.word() {
                    "null" => Kind::Null,
                    word => Kind::Bool(word == "true"),
                };
                self.advance();
                self.term(kind, start)
            }
            Token::Name if self.is_variable() => {
                let name = self.word().to_owned();
                self.advance();
                self.term(Kind::Var(name), start)
            }
            _ => return Err(self.error("expected a term")),
        };
        self.suffixes(head, false)
    }

    /// What follows the head of a reference or a call. In the head of a rule blanks may stand before the first part.
    pub(super) fn suffixes(&mut self, head: TermRef, mut blanks: bool) -> Parsed<TermRef> {
        let start = head.span.start;
        let mut head = head;
        let mut rest: Vec<TermRef> = Vec::new();
        loop {
            let lexeme = self.lexeme();
            let follows = matches!(lexeme.token, Token::Sign("." | "[" | "(")) && (!lexeme.apart || blanks);
            if !follows {
                return Ok(if rest.is_empty() {
                    head
                } else {
                    self.term(Kind::Ref(head, rest), start)
                });
            }
            blanks = false;
            if !is_head(&head.kind) {
                return Err(self.error("illegal reference: its head is a constant"));
            }
            match lexeme.token {
                Token::Sign(".") => {
                    self.advance();
                    if self.lexeme().token != Token::Name || self.lexeme().apart {
                        return Err(self.error("expected ident"));
                    }
                    let (at, name) = (self.lexeme().start, self.word().to_owned());
                    self.advance();
                    rest.push(self.term(Kind::Text(name), at));
                }
                Token::Sign("[") => {
                    self.advance();
                    let index = self.infix(true)?;
                    rest.push(index);
                    self.expect("]")?;
                }
                _ => {
                    let function = if rest.is_empty() {
                        head
                    } else {
                        self.term(Kind::Ref(head, std::mem::take(&mut rest)), start)
                    };
                    self.advance();
                    let arguments = self.list(")", Vec::new())?;
                    let empty_set = arguments.is_empty() && function.path().is_some_and(|path| path == ["set"]);
                    head = self.term(
                        if empty_set {
                            Kind::Set(Vec::new())
                        } else {
                            Kind::Call(function, arguments)
                        },
                        start,
                    );
                    head = self.bounded(head)?;
                    // `f(x)(y)` is no call.
                    if self.is_sign("(") && !self.lexeme().apart {
                        return Err(self.error("expected an operator or the end of the term"));
                    }
                }
            }
        }
    }

    fn number(&mut self) -> Parsed<TermRef> {
        let (first, start) = (self.at, self.lexeme().start);
        let mut number = String::new();
        for sign in ["-", "."] {
            if self.is_sign(sign) {
                number.push_str(sign);
                self.advance();
            }
        }
        if self.lexeme().token != Token::Number {
            return Err(self.error("expected number"));
        }
        number.push_str(self.word());
        // A point without a digit before it, as in `.5`.
        let whole = match number.strip_prefix('-').unwrap_or(&number) {
            fraction if fraction.starts_with('.') => number.replacen('.', "0.", 1),
            _ => number,
        };
        self.advance();
        match literal::number_problem(&whole) {
            None => Ok(self.term(Kind::Number(whole), start)),
            Some(problem) => Err(self.error_at(first, problem)),
        }
    }

    fn template(&mut self) -> Parsed<TermRef> {
        let start = self.lexeme().start;
        let mut parts = Vec::new();
        loop {
            let lexeme = self.lexeme();
            let Token::Template { last } = lexeme.token else {
                return Err(self.error("expected } to end template string expression"));
            };
            let quoted = self.text.get(lexeme.start..lexeme.end).unwrap_or("");
            let inner = quoted
                .trim_start_matches('$')
                .get(1..)
                .and_then(|rest| rest.get(..rest.len() - 1))
                .unwrap_or("");
            let raw = self.text.get(start..).is_some_and(|rest| rest.starts_with("$`"));
            let unescaped = inner.replace("\\{", "{");
            let text = if raw { Some(unescaped) } else { literal::unquoted(&unescaped) };
            let text = text.ok_or_else(|| self.error("illegal template-string part"))?;
            self.advance();
            let expression = if last {
                None
            } else {
                Some(self.deeper(Self::template_expression)?)
            };
            parts.push(Part {
                text,
                span: lexeme.start..lexeme.end,
                expression,
            });
            if last {
                return Ok(self.term(Kind::Template(parts), start));
            }
        }
    }

    /// Items up to a closing bracket.
    fn list(&mut self, end: &'static str, mut items: Vec<TermRef>) -> Parsed<Vec<TermRef>> {
        while !self.is_sign(end) {
            items.push(self.infix(false)?);
            if self.is_sign(",") {
                self.advance();
            } else if !self.is_sign(end) {
                return Err(self.error(format!("expected \",\" or {end:?}")));
            }
        }
        self.advance();
        Ok(items)
    }

    /// Skips a comma before the first item, which OPA takes.
    fn leading_comma(&mut self) -> bool {
        let found = self.is_sign(",");
        if found {
            self.leading_commas.push(self.lexeme().start);
            self.advance();
        }
        found
    }

    fn array(&mut self) -> Parsed<TermRef> {
        let start = self.lexeme().start;
        self.advance();
        if self.is_sign("]") {
            self.advance();
            return Ok(self.term(Kind::Array(Vec::new()), start));
        }
        let may_be_comprehension = !self.leading_comma();
        let first = self.at;
        let head = self.single()?;
        if self.is_sign("|") && may_be_comprehension {
            self.advance();
            match self.comprehension("]") {
                Ok(body) => return Ok(self.term(Kind::ArrayOf(head, body), start)),
                Err(error) if error.limit || !self.is_sign(",") => return Err(error),
                Err(_) => {}
            }
        }
        self.at = first;
        let items = self.list("]", Vec::new())?;
        Ok(self.term(Kind::Array(items), start))
    }

    fn comprehension(&mut self, end: &'static str) -> Parsed<Body> {
        self.deeper(|parser| parser.body(end))
    }

    fn set_or_object(&mut self) -> Parsed<TermRef> {
        let start = self.lexeme().start;
        self.advance();
        if self.is_sign("}") {
            self.advance();
            return Ok(self.term(Kind::Object(Vec::new()), start));
        }
        let may_be_comprehension = !self.leading_comma();
        let first = self.at;
        let mut head = self.single()?;
        if self.is_sign("|") && may_be_comprehension {
            self.advance();
            match self.comprehension("}") {
                Ok(body) => return Ok(self.term(Kind::SetOf(head, body), start)),
                Err(error) if error.limit || !self.is_sign(",") => return Err(error),
                Err(_) => {}
            }
        }
        if !self.is_sign(":") {
            self.at = first;
            head = self.infix(false)?;
        }
        match self.lexeme().token {
            Token::Sign("}" | ",") => {
                self.at = first;
                let items = self.list("}", Vec::new())?;
                Ok(self.term(Kind::Set(items), start))
            }
            Token::Sign(":") => self.object(start, head, may_be_comprehension),
            _ => Err(self.error("non-terminated set")),
        }
    }

    /// An object behind its first key.
    fn object(&mut self, start: usize, key: TermRef, may_be_comprehension: bool) -> Parsed<TermRef> {
        self.advance();
        let first = self.at;
        let value = self.single()?;
        if may_be_comprehension && self.is_sign("|") {
            self.advance();
            match self.comprehension("}") {
                Ok(body) => return Ok(self.term(Kind::ObjectOf(key, value, body), start)),
                Err(error) if error.limit => return Err(error),
                Err(_) => {}
            }
        }
        self.at = first;
        let value = self.infix(false)?;
        let mut pairs = vec![(key, value)];
        loop {
            if self.is_sign("}") {
                break;
            }
            if !self.is_sign(",") {
                return Err(self.error("expected \",\" or \"}\""));
            }
            self.advance();
            if self.is_sign("}") {
                break;
            }
            let key = self.infix(false)?;
            self.expect(":")?;
            pairs.push((key, self.infix(false)?));
        }
        self.advance();
        Ok(self.term(Kind::Object(pairs), start))
    }
}

/// Whether a reference or a call may begin with the term.
fn is_head(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Template(_) | Kind::Infix(..)
    )
}
