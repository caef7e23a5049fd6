//! Rules: heads, bodies, and statements that stand for a rule.

use super::super::SyntaxError;
use super::super::ast::{Else, Expression, Kind, Literal, LiteralKind, Rule, TermRef};
use super::super::lexer::Token;
use super::{Parsed, Parser};

impl Parser<'_> {
    pub(super) fn rule(&mut self) -> Parsed<Rule> {
        let first = self.at;
        if self.is_word("default") && !self.names_a_reference() {
            self.advance();
            return self.default_rule(first);
        }
        if !self.starts_head() {
            return Err(self.error("expected a rule"));
        }
        let mut rule = self.head(first)?;
        if self.is_word("if") && !self.names_a_reference() {
            self.advance();
            rule.bodies.push(self.condition()?);
        } else if self.is_sign("{") {
            return Err(self.error("`if` keyword is required before rule body"));
        } else if rule.key.is_some() {
            return Ok(self.ended(rule));
        } else {
            // Without a body the text is a statement, which stands for a rule.
            self.at = first;
            return self.fact(first);
        }
        if self.is_word("else") && !self.names_a_reference() {
            self.alternatives(&mut rule)?;
            if self.is_sign("{") {
                return Err(self.error("expected else keyword"));
            }
        }
        while self.is_sign("{") {
            self.advance();
            rule.bodies.push(self.deeper(|parser| parser.body("}"))?);
        }
        Ok(self.ended(rule))
    }

    fn ended(&self, rule: Rule) -> Rule {
        Rule {
            span: rule.span.start..self.end_before(),
            ..rule
        }
    }

    fn starts_head(&self) -> bool {
        self.lexeme().token == Token::Name && (self.names_a_reference() || self.is_variable() && self.word() != "contains")
    }

    /// A name, arguments, and what the rule yields.
    fn head(&mut self, first: usize) -> Parsed<Rule> {
        let start = self.lexeme().start;
        let name = self.word().to_owned();
        self.advance();
        let name = self.term(Kind::Var(name), start);
        let name = self.suffixes(name, true)?;
        let (name, arguments) = match &name.kind {
            Kind::Call(name, arguments) => (name.clone(), Some(arguments.clone())),
            Kind::Ref(head, _) if !matches!(head.kind, Kind::Var(_)) => return Err(self.error_at(first, "invalid rule head")),
            _ => (name, None),
        };
        if let Some(Kind::Var(name)) = root(&name).map(|root| &root.kind)
            && matches!(name.as_str(), "input" | "data")
        {
            return Err(self.error_at(first, format!("rules must not shadow {name}")));
        }
        let head_end = self.end_before();
        let mut rule = Rule {
            is_default: false,
            name,
            arguments,
            key: None,
            value: None,
            bodies: Vec::new(),
            otherwise: Vec::new(),
            span: self.lexeme_at(first).start..head_end,
            head_end,
        };
        if self.is_word("contains") && !self.names_a_reference() {
            if rule.arguments.is_some() {
                return Err(self.error("the contains keyword can only be used with multi-value rule definitions"));
            }
            self.advance();
            rule.key = Some(self.infix(true)?);
        } else if self.is_sign("=") || self.is_sign(":=") {
            self.advance();
            rule.value = Some(self.infix(true)?);
        }
        Ok(rule)
    }

    fn default_rule(&mut self, first: usize) -> Parsed<Rule> {
        if !self.starts_head() {
            return Err(self.error("expected a rule"));
        }
        let mut rule = self.head(first)?;
        rule.is_default = true;
        let Some(value) = &rule.value else {
            return Err(self.error_at(first, "illegal default rule (must have a value)"));
        };
        if let Some(part) = computed_part(value) {
            let problem = format!("illegal default rule (value cannot contain {part})");
            return Err(self.error_at(first, problem));
        }
        let mut names: Vec<&str> = Vec::new();
        for argument in rule.arguments.iter().flatten() {
            match &argument.kind {
                Kind::Var(name) if name == "_" || !names.contains(&name.as_str()) => names.push(name),
                Kind::Var(_) => return Err(self.error_at(first, "illegal default rule (arguments cannot be repeated)")),
                _ => return Err(self.error_at(first, "illegal default rule (arguments must be variables)")),
            }
        }
        Ok(self.ended(rule))
    }

    /// A body behind `if`: a statement, or statements in braces. A set is never false, so braces that could be one are a body.
    fn condition(&mut self) -> Parsed<Vec<Literal>> {
        let place = self.at;
        match self.statement() {
            Ok(literal) if !is_set(&literal) => return Ok(vec![literal]),
            Err(error) if error.limit || !matches!(self.lexeme_at(place).token, Token::Sign("{")) => return Err(error),
            _ => self.at = place,
        }
        self.advance();
        self.deeper(|parser| parser.body("}"))
    }

    fn alternatives(&mut self, rule: &mut Rule) -> Parsed<()> {
        while self.is_word("else") {
            if rule.key.is_some() || has_variables(&rule.name) {
                return Err(self.error("else keyword cannot be used on rules with variables in head"));
            }
            self.advance();
            let value = match self.lexeme().token {
                Token::Sign("=" | ":=") => {
                    self.advance();
                    Some(self.infix(true)?)
                }
                _ if self.is_word("if") => None,
                Token::Sign("{") => return Err(self.error("`if` keyword is required before rule body")),
                _ => return Err(self.error("expected else value term or rule body")),
            };
            let body = if self.is_word("if") {
                self.advance();
                if self.is_sign("{") {
                    self.advance();
                    self.deeper(|parser| parser.body("}"))?
                } else {
                    vec![self.statement()?]
                }
            } else if self.is_sign("{") {
                return Err(self.error("`if` keyword is required before rule body"));
            } else {
                Vec::new()
            };
            let ends = body.is_empty();
            rule.otherwise.push(Else { value, body });
            if ends {
                break;
            }
        }
        Ok(())
    }

    /// A statement that stands for a rule: `name := value`, `f(1)`, `f(1) := value`.
    fn fact(&mut self, first: usize) -> Parsed<Rule> {
        let literal = self.statement()?;
        if self.is_sign(";") {
            return Err(self.error_at(first, "multiple expressions cannot be used for rule head"));
        }
        let refused = |parser: &Self, problem: &str| -> SyntaxError { parser.error_at(first, problem) };
        if !literal.with.is_empty() {
            return Err(refused(self, "expressions using with keyword cannot be used for rule head"));
        }
        let LiteralKind::Plain(expression) = literal.kind else {
            return Err(refused(self, "expression cannot be used for rule head"));
        };
        let (left, value) = match expression {
            Expression::Assign { left, right, .. } => (left, Some(right)),
            Expression::Term(term) => (term, None),
        };
        let (name, arguments) = match &left.kind {
            Kind::Call(_, arguments) if arguments.is_empty() => {
                return Err(refused(self, "rule argument list must take at least one argument"));
            }
            Kind::Call(name, arguments) => (name.clone(), Some(arguments.clone())),
            Kind::Var(_) | Kind::Ref(..) => (left.clone(), None),
            _ => return Err(refused(self, "expression cannot be used for rule head")),
        };
        if root(&name).is_none() {
            return Err(refused(self, "invalid rule head"));
        }
        if value.is_none() && arguments.is_none() {
            return Err(refused(self, "rule must have value assignment and/or body declaration"));
        }
        Ok(Rule {
            is_default: false,
            name,
            arguments,
            key: None,
            value,
            bodies: Vec::new(),
            otherwise: Vec::new(),
            span: literal.span.clone(),
            head_end: left.span.end,
        })
    }
}

/// The variable that a name begins with.
fn root(name: &TermRef) -> Option<&TermRef> {
    match &name.kind {
        Kind::Var(_) => Some(name),
        Kind::Ref(head, _) if matches!(head.kind, Kind::Var(_)) => Some(head),
        _ => None,
    }
}

fn has_variables(name: &TermRef) -> bool {
    match &name.kind {
        Kind::Ref(_, rest) => rest
            .iter()
            .any(|part| !matches!(part.kind, Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Null)),
        _ => false,
    }
}

fn is_set(literal: &Literal) -> bool {
    matches!(&literal.kind, LiteralKind::Plain(Expression::Term(term)) if matches!(term.kind, Kind::Set(_)))
}

/// What the value of a default rule must not contain; comprehensions may.
fn computed_part(value: &TermRef) -> Option<&'static str> {
    match &value.kind {
        Kind::Var(_) => Some("var"),
        Kind::Ref(..) => Some("ref"),
        Kind::Call(..) | Kind::Infix(..) | Kind::Member(..) | Kind::Template(_) => Some("call"),
        Kind::ArrayOf(..) | Kind::SetOf(..) | Kind::ObjectOf(..) => None,
        _ => {
            let mut found = None;
            value.each_child(&mut |child| found = found.or_else(|| computed_part(child)));
            found
        }
    }
}
