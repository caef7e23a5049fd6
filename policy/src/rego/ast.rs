//! The syntax tree of a module. Spans are byte ranges of the text.

use std::ops::Range;
use std::rc::Rc;

/// A byte range of the text.
pub(crate) type Span = Range<usize>;

/// A term; shared, since the parser tries a text in several ways.
pub(crate) type TermRef = Rc<Term>;

/// A term and its place.
#[derive(Debug, PartialEq)]
pub(crate) struct Term {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    /// Levels of terms below this one; the parser bounds it, since the tree is walked by recursion.
    pub(crate) height: usize,
}

/// What a term is.
#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    /// A number as OPA reads it: with its sign, without blanks.
    Number(String),
    /// The value of a string.
    Text(String),
    /// A literal that nests deeply; it is not taken apart.
    Literal,
    /// `$"…"`: texts and expressions in turn.
    Template(Vec<Part>),
    Var(String),
    /// A term and what follows it: `head.a["b"]`.
    Ref(TermRef, Vec<TermRef>),
    /// A function and its arguments.
    Call(TermRef, Vec<TermRef>),
    Array(Vec<TermRef>),
    Set(Vec<TermRef>),
    Object(Vec<(TermRef, TermRef)>),
    ArrayOf(TermRef, Body),
    SetOf(TermRef, Body),
    ObjectOf(TermRef, TermRef, Body),
    /// Two operands and an operator between them.
    Infix(&'static str, TermRef, TermRef),
    /// `key, value in collection`.
    Member(Option<TermRef>, TermRef, TermRef),
    Parens(TermRef),
}

/// A part of a template string. Its span includes the delimiters: `$"`, `{`, `}`, `"`.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) span: Span,
    /// The expression behind the text; none behind the last.
    pub(crate) expression: Option<Literal>,
}

/// The statements of a body.
pub(crate) type Body = Vec<Literal>;

/// A statement.
#[derive(Debug, PartialEq)]
pub(crate) struct Literal {
    pub(crate) kind: LiteralKind,
    pub(crate) with: Vec<(TermRef, TermRef)>,
    pub(crate) span: Span,
}

/// What a statement is.
#[derive(Debug, PartialEq)]
pub(crate) enum LiteralKind {
    /// `some x, y`.
    Declare(Vec<String>),
    /// `some x in xs`; the term is a [`Kind::Member`].
    Some(TermRef),
    /// `every x in xs { … }`.
    Every {
        names: Vec<TermRef>,
        domain: TermRef,
        body: Body,
    },
    Not(Expression),
    Plain(Expression),
}

/// An expression.
#[derive(Debug, PartialEq)]
pub(crate) enum Expression {
    Term(TermRef),
    /// `left := right`, or `left = right`.
    Assign {
        declares: bool,
        left: TermRef,
        right: TermRef,
    },
}

/// A rule.
#[derive(Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) is_default: bool,
    /// The name: a variable or a reference.
    pub(crate) name: TermRef,
    /// The arguments of a function.
    pub(crate) arguments: Option<Vec<TermRef>>,
    /// Behind `contains`.
    pub(crate) key: Option<TermRef>,
    pub(crate) value: Option<TermRef>,
    pub(crate) bodies: Vec<Body>,
    pub(crate) otherwise: Vec<Else>,
    pub(crate) span: Span,
    /// The end of the head.
    pub(crate) head_end: usize,
}

/// `else := value if { … }`.
#[derive(Debug, PartialEq)]
pub(crate) struct Else {
    pub(crate) value: Option<TermRef>,
    pub(crate) body: Body,
}

/// An import.
#[derive(Debug, PartialEq)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    pub(crate) alias: Option<String>,
    pub(crate) span: Span,
    /// It stands behind a rule.
    pub(crate) late: bool,
}

impl Import {
    /// The name that the import introduces.
    pub(crate) fn name(&self) -> &str {
        match &self.alias {
            Some(alias) => alias,
            None => self.path.last().map_or("", String::as_str),
        }
    }

    /// Whether the import only names words of the language, which all are known.
    pub(crate) fn is_of_language(&self) -> bool {
        matches!(self.path.first().map(String::as_str), Some("future" | "rego"))
    }
}

/// A module.
#[derive(Debug, PartialEq)]
pub(crate) struct Module {
    pub(crate) package: Vec<String>,
    /// The path of the package without the word `package`.
    pub(crate) package_span: Span,
    pub(crate) imports: Vec<Import>,
    pub(crate) rules: Vec<Rule>,
    /// Carriage returns that end no line.
    pub(crate) lone_returns: Vec<usize>,
    /// Commas before the first item of a list.
    pub(crate) leading_commas: Vec<usize>,
}

impl Term {
    /// The names of a path: `data.a["b"]`; none if a part is computed.
    pub(crate) fn path(&self) -> Option<Vec<&str>> {
        match &self.kind {
            Kind::Var(name) => Some(vec![name]),
            Kind::Ref(head, rest) => {
                let Kind::Var(name) = &head.kind else { return None };
                std::iter::once(Some(name.as_str()))
                    .chain(rest.iter().map(|part| match &part.kind {
                        Kind::Text(name) => Some(name.as_str()),
                        _ => None,
                    }))
                    .collect()
            }
            _ => None,
        }
    }

    /// The terms right below this one, those of bodies included.
    pub(crate) fn each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a TermRef)) {
        match &self.kind {
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Literal | Kind::Var(_) => {}
            Kind::Template(parts) => {
                for expression in parts.iter().filter_map(|part| part.expression.as_ref()) {
                    expression.each_term(visit);
                }
            }
            Kind::Ref(head, rest) | Kind::Call(head, rest) => {
                visit(head);
                rest.iter().for_each(visit);
            }
            Kind::Array(items) | Kind::Set(items) => items.iter().for_each(visit),
            Kind::Object(pairs) => {
                for (key, value) in pairs {
                    visit(key);
                    visit(value);
                }
            }
            Kind::ArrayOf(term, body) | Kind::SetOf(term, body) => {
                visit(term);
                body.iter().for_each(|literal| literal.each_term(visit));
            }
            Kind::ObjectOf(key, value, body) => {
                visit(key);
                visit(value);
                body.iter().for_each(|literal| literal.each_term(visit));
            }
            Kind::Infix(_, left, right) => {
                visit(left);
                visit(right);
            }
            Kind::Member(key, value, collection) => {
                key.iter().for_each(&mut *visit);
                visit(value);
                visit(collection);
            }
            Kind::Parens(term) => visit(term),
        }
    }

    /// This term and all below it.
    pub(crate) fn walk<'a>(self: &'a TermRef, visit: &mut dyn FnMut(&'a TermRef)) {
        visit(self);
        self.each_child(&mut |child| child.walk(visit));
    }
}

impl Literal {
    /// The terms of the statement.
    pub(crate) fn each_term<'a>(&'a self, visit: &mut dyn FnMut(&'a TermRef)) {
        match &self.kind {
            LiteralKind::Declare(_) => {}
            LiteralKind::Some(member) => visit(member),
            LiteralKind::Every { names, domain, body } => {
                names.iter().for_each(&mut *visit);
                visit(domain);
                body.iter().for_each(|literal| literal.each_term(visit));
            }
            LiteralKind::Not(expression) | LiteralKind::Plain(expression) => match expression {
                Expression::Term(term) => visit(term),
                Expression::Assign { left, right, .. } => {
                    visit(left);
                    visit(right);
                }
            },
        }
        for (target, value) in &self.with {
            visit(target);
            visit(value);
        }
    }
}

impl Rule {
    /// The terms of head and bodies.
    pub(crate) fn each_term<'a>(&'a self, visit: &mut dyn FnMut(&'a TermRef)) {
        visit(&self.name);
        self.arguments.iter().flatten().for_each(&mut *visit);
        self.key.iter().chain(&self.value).for_each(&mut *visit);
        for body in self.bodies.iter().chain(self.otherwise.iter().map(|otherwise| &otherwise.body)) {
            body.iter().for_each(|literal| literal.each_term(visit));
        }
        self.otherwise
            .iter()
            .filter_map(|otherwise| otherwise.value.as_ref())
            .for_each(visit);
    }
}
