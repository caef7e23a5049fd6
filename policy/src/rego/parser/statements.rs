//! The statements of bodies.

use super::super::ast::{Body, Expression, Kind, Literal, LiteralKind, TermRef};
use super::super::lexer::Token;
use super::{Parsed, Parser};

impl Parser<'_> {
    /// Statements up to a closing bracket, which is skipped.
    pub(super) fn body(&mut self, end: &'static str) -> Parsed<Body> {
        if self.is_sign(end) {
            return Err(self.error("found empty body"));
        }
        let mut body = Vec::new();
        loop {
            body.push(self.statement()?);
            if self.is_sign(";") {
                self.advance();
            } else if self.is_sign(end) {
                self.advance();
                return Ok(body);
            } else if !self.lexeme().new_line {
                return Err(self.error(format!("expected a new line, \";\" or {end:?}")));
            }
        }
    }

    pub(super) fn statement(&mut self) -> Parsed<Literal> {
        let start = self.lexeme().start;
        let is_reference = self.names_a_reference();
        let word = |parser: &Self, word: &str| !is_reference && parser.is_word(word);
        let kind = if word(self, "some") {
            self.some()?
        } else if word(self, "every") {
            self.every()?
        } else if word(self, "not") {
            self.advance();
            if self.is_word("some") || self.is_word("every") {
                return Err(self.error("illegal negation"));
            }
            LiteralKind::Not(self.expression()?)
        } else {
            LiteralKind::Plain(self.expression()?)
        };
        let may_have_with = !matches!(kind, LiteralKind::Declare(_));
        let with = if may_have_with { self.modifiers()? } else { Vec::new() };
        Ok(Literal {
            kind,
            with,
            span: start..self.end_before(),
        })
    }

    /// The expression of a template string, up to the part that follows it. OPA takes no other statement there.
    pub(super) fn template_expression(&mut self) -> Parsed<Literal> {
        let place = self.at;
        let literal = self.statement()?;
        match &literal.kind {
            LiteralKind::Plain(Expression::Term(_)) => Ok(literal),
            _ => Err(self.error_at(place, "a template string takes terms only")),
        }
    }

    fn expression(&mut self) -> Parsed<Expression> {
        let left = self.infix(true)?;
        let declares = match self.lexeme().token {
            Token::Sign(":=") => true,
            Token::Sign("=") => false,
            _ => return Ok(Expression::Term(left)),
        };
        self.advance();
        let right = self.infix(true)?;
        Ok(Expression::Assign { declares, left, right })
    }

    fn modifiers(&mut self) -> Parsed<Vec<(TermRef, TermRef)>> {
        let mut with = Vec::new();
        while self.is_word("with") {
            self.advance();
            if !self.is_variable() || self.word() == "contains" {
                return Err(self.error("expected ident"));
            }
            let place = self.at;
            let target = self.single()?;
            if !matches!(target.kind, Kind::Var(_) | Kind::Ref(..)) {
                return Err(self.error_at(place, "expected with target path"));
            }
            if !self.is_word("as") {
                return Err(self.error("expected as keyword"));
            }
            self.advance();
            with.push((target, self.infix(true)?));
        }
        Ok(with)
    }

    fn some(&mut self) -> Parsed<LiteralKind> {
        self.advance();
        let place = self.at;
        match self.infix(true) {
            Ok(term) if matches!(term.kind, Kind::Member(..)) => return Ok(LiteralKind::Some(term)),
            Ok(term) if matches!(term.kind, Kind::Call(..) | Kind::Infix(..)) => {
                return Err(self.error_at(place, "expected `x in xs` or `x, y in xs` expression"));
            }
            Err(error) if error.limit => return Err(error),
            _ => self.at = place,
        }
        let mut names = Vec::new();
        loop {
            names.push(self.name("expected var")?);
            if !self.is_sign(",") {
                return Ok(LiteralKind::Declare(names));
            }
            self.advance();
        }
    }

    fn every(&mut self) -> Parsed<LiteralKind> {
        self.advance();
        let place = self.at;
        let member = self.infix(true)?;
        let Kind::Member(key, value, domain) = &member.kind else {
            return Err(self.error_at(place, "expected `x[, y] in xs { ... }` expression"));
        };
        let names: Vec<TermRef> = key.iter().chain([value]).cloned().collect();
        if names.iter().any(|name| !matches!(name.kind, Kind::Var(_))) {
            return Err(self.error_at(place, "expected a variable"));
        }
        let domain = domain.clone();
        if !self.is_sign("{") {
            return Err(self.error("missing body"));
        }
        self.advance();
        let body = self.deeper(|parser| parser.body("}"))?;
        Ok(LiteralKind::Every { names, domain, body })
    }
}
