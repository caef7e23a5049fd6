//! A parser of modules that accepts what OPA's accepts.
//!
//! As there, a text is tried in several ways: `{…}` may be a set, an object, a comprehension or a body. Terms are kept by their place, so
//! that none is parsed twice.

use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{Import, Kind, Module, Rule, Term, TermRef};
use super::lexer::{Lexeme, Token, lex};
use super::{KEYWORDS, SyntaxError, literal};

mod nesting;
mod rules;
mod statements;
mod terms;

/// Deepest nesting of terms that are no constants; the interpreter's stack is the limit.
const MAX_DEPTH: usize = 64;

/// Highest tree of terms.
const MAX_HEIGHT: usize = 1024;

type Parsed<T> = Result<T, SyntaxError>;

/// Parses a module.
///
/// # Errors
/// OPA refuses the text, or it exceeds a limit.
pub(crate) fn parse(text: &str) -> Result<Module, SyntaxError> {
    let lexemes = lex(text)?;
    let mut parser = Parser {
        text,
        literals: nesting::literals(text, &lexemes.list),
        lexemes: lexemes.list,
        at: 0,
        depth: 0,
        terms: HashMap::new(),
        leading_commas: Vec::new(),
    };
    let mut module = parser.module()?;
    module.lone_returns = lexemes.lone_returns;
    parser.leading_commas.sort_unstable();
    parser.leading_commas.dedup();
    module.leading_commas = parser.leading_commas;
    Ok(module)
}

struct Parser<'a> {
    text: &'a str,
    lexemes: Vec<Lexeme>,
    /// The next token.
    at: usize,
    depth: usize,
    /// Terms by their first token, with the token behind them, and what is no term: a text is not read again at each level above it.
    terms: HashMap<usize, (Parsed<TermRef>, usize)>,
    /// Constants that nest deeply: the token behind each, by its first token.
    literals: HashMap<usize, usize>,
    leading_commas: Vec<usize>,
}

impl Parser<'_> {
    fn module(&mut self) -> Parsed<Module> {
        if self.lexeme().token == Token::End {
            return Err(self.error("empty module"));
        }
        if !self.is_word("package") {
            return Err(self.error("package expected"));
        }
        self.advance();
        let (package, span) = self.path()?;
        if self.peek_call(&span) {
            return Err(self.error("unexpected token"));
        }
        let mut module = Module {
            package,
            package_span: span,
            imports: Vec::new(),
            rules: Vec::new(),
            lone_returns: Vec::new(),
            leading_commas: Vec::new(),
        };
        while self.lexeme().token != Token::End {
            if self.is_word("package") && !self.names_a_reference() {
                return Err(self.error("unexpected package"));
            }
            if self.is_word("import") && !self.names_a_reference() {
                let import = self.import(!module.rules.is_empty())?;
                self.check_import(&import, &module.imports)?;
                module.imports.push(import);
            } else {
                let rule: Rule = self.rule()?;
                module.rules.push(rule);
            }
        }
        Ok(module)
    }

    fn import(&mut self, late: bool) -> Parsed<Import> {
        let start = self.lexeme().start;
        self.advance();
        let place = self.at;
        let (path, _) = self.path()?;
        let mut import = Import {
            path,
            alias: None,
            span: start..self.end_before(),
            late,
        };
        if !matches!(import.path.first().map(String::as_str), Some("data" | "input" | "future" | "rego")) {
            return Err(self.error_at(place, "unexpected import path, must begin with one of: {data, future, input, rego}"));
        }
        if self.is_word("as") {
            self.advance();
            let alias = self.name("expected var")?;
            if self.peek_call(&(0..self.end_before())) {
                return Err(self.error("expected var"));
            }
            import.alias = Some(alias);
            import.span.end = self.end_before();
        } else if import.path.first().is_none_or(|first| first != "future") && KEYWORDS.contains(&import.name()) {
            let problem = format!("unexpected import path, must not end with a keyword, got: {}", import.name());
            return Err(self.error_at(place, problem));
        }
        Ok(import)
    }

    /// The names that an import may not have.
    fn check_import(&self, import: &Import, earlier: &[Import]) -> Parsed<()> {
        let problem = |problem: String| Err(SyntaxError::new(self.text, import.span.start, problem));
        let path: Vec<&str> = import.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["future", "keywords", ..] if import.alias.is_some() => return problem("`future` imports cannot be aliased".to_owned()),
            ["future", "keywords", word] if !matches!(*word, "in" | "every" | "contains" | "if") => {
                return problem("unexpected keyword, must be one of [contains every if in]".to_owned());
            }
            ["future", "keywords", ..] | ["rego", "v1"] => {}
            ["future", ..] => return problem("invalid import, must be `future.keywords`".to_owned()),
            ["rego", ..] => return problem("invalid import, must be `rego.v1`".to_owned()),
            _ => {}
        }
        if earlier.iter().any(|other| other.name() == import.name()) {
            return problem(format!("import must not shadow import {}", import.name()));
        }
        Ok(())
    }

    /// A dotted name whose parts may be keywords.
    fn path(&mut self) -> Parsed<(Vec<String>, std::ops::Range<usize>)> {
        let start = self.lexeme().start;
        if self.lexeme().token != Token::Name {
            return Err(self.error("expected path"));
        }
        let mut names = vec![self.word().to_owned()];
        self.advance();
        loop {
            let lexeme = self.lexeme();
            match lexeme.token {
                Token::Sign(".") if !lexeme.apart => {
                    self.advance();
                    if self.lexeme().token != Token::Name || self.lexeme().apart {
                        return Err(self.error("expected ident"));
                    }
                    names.push(self.word().to_owned());
                    self.advance();
                }
                Token::Sign("[") if !lexeme.apart => {
                    self.advance();
                    let Some(name) = Some(self.lexeme()).filter(|l| l.token == Token::Text).and_then(|l| self.string(l)) else {
                        return Err(self.error("expecting string"));
                    };
                    names.push(name);
                    self.advance();
                    self.expect("]")?;
                }
                _ => return Ok((names, start..self.end_before())),
            }
        }
    }

    fn peek_call(&self, span: &std::ops::Range<usize>) -> bool {
        let lexeme = self.lexeme();
        lexeme.start == span.end && matches!(lexeme.token, Token::Sign("(" | "." | "["))
    }

    fn string(&self, lexeme: Lexeme) -> Option<String> {
        self.text.get(lexeme.start..lexeme.end).and_then(literal::text)
    }

    fn lexeme(&self) -> Lexeme {
        self.lexeme_at(self.at)
    }

    /// The token at an index; behind the last one is the end.
    fn lexeme_at(&self, index: usize) -> Lexeme {
        let end = Lexeme {
            token: Token::End,
            start: self.text.len(),
            end: self.text.len(),
            apart: false,
            new_line: false,
        };
        self.lexemes.get(index).copied().unwrap_or(end)
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    /// The end of the token before the next one.
    fn end_before(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |before| self.lexeme_at(before).end)
    }

    /// The next token's text.
    fn word(&self) -> &str {
        let lexeme = self.lexeme();
        self.text.get(lexeme.start..lexeme.end).unwrap_or("")
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.lexeme().token, Token::Sign(next) if next == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        self.lexeme().token == Token::Name && self.word() == word
    }

    /// Whether the next token is a name that is no keyword. `contains` is one only behind the name of a rule.
    fn is_variable(&self) -> bool {
        self.lexeme().token == Token::Name && (self.word() == "contains" || !KEYWORDS.contains(&self.word()))
    }

    /// Whether the next token, a keyword, is the first name of a reference: `package.x`.
    fn names_a_reference(&self) -> bool {
        let next = self.lexeme_at(self.at + 1);
        !next.apart && matches!(next.token, Token::Sign("." | "["))
    }

    fn expect(&mut self, sign: &'static str) -> Parsed<()> {
        if !self.is_sign(sign) {
            return Err(self.error(format!("expected {sign}")));
        }
        self.advance();
        Ok(())
    }

    fn name(&mut self, problem: &str) -> Parsed<String> {
        if !self.is_variable() || self.word() == "contains" {
            return Err(self.error(problem));
        }
        let name = self.word().to_owned();
        self.advance();
        Ok(name)
    }

    /// An error at the next token.
    fn error(&self, problem: impl Into<String>) -> SyntaxError {
        self.error_at(self.at, problem)
    }

    fn error_at(&self, index: usize, problem: impl Into<String>) -> SyntaxError {
        let lexeme = self.lexeme_at(index);
        let problem = problem.into();
        let found = match lexeme.token {
            Token::End => "end of text".to_owned(),
            _ => {
                let token = self.text.get(lexeme.start..lexeme.end).unwrap_or("");
                format!("{:?}", token.chars().take(32).collect::<String>())
            }
        };
        SyntaxError::new(self.text, lexeme.start, format!("unexpected {found}: {problem}"))
    }

    /// Runs `parse` one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            let at = self.lexeme().start;
            return Err(SyntaxError::limit(self.text, at, format!("brackets nest deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn term(&self, kind: Kind, start: usize) -> TermRef {
        let mut term = Term {
            kind,
            span: start..self.end_before(),
            height: 0,
        };
        let mut below = 0;
        term.each_child(&mut |child| below = below.max(child.height + 1));
        term.height = below;
        Rc::new(term)
    }

    /// Refuses a term that other terms were built upon too often: operators, calls of what a call returned.
    fn bounded(&self, term: TermRef) -> Parsed<TermRef> {
        if term.height > MAX_HEIGHT {
            return Err(SyntaxError::limit(self.text, term.span.start, "the expression is too long"));
        }
        Ok(term)
    }
}
