//! Translation of RE2 patterns to patterns of crate `regex`.

use super::PatternError;

/// Deepest nesting of groups; the translation recurses.
const MAX_DEPTH: usize = 200;
/// Largest counter, alone or multiplied by the enclosing counters.
const MAX_REPEAT: u32 = 1000;

/// `\d`, `\s`, `\w` as members of a class.
const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x0C\r\x20";
const WORD: &str = "0-9A-Za-z_";

const POSIX_CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
];
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf",
    "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

/// The last item read, for the repetition operators.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    /// A repeatable item, with the product of the counters inside it.
    Atom(u32),
    Repeated,
    Flags,
}

struct Translator<'a> {
    rest: std::str::Chars<'a>,
    out: String,
}

/// Rewrites `pattern`.
pub(super) fn translate(pattern: &str) -> Result<String, PatternError> {
    let mut translator = Translator {
        rest: pattern.chars(),
        out: String::with_capacity(pattern.len() * 2),
    };
    translator.sequence(0)?;
    Ok(translator.out)
}

impl Translator<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn take_if(&mut self, text: &str) -> bool {
        match self.rest.as_str().strip_prefix(text) {
            Some(rest) => {
                self.rest = rest.chars();
                true
            }
            None => false,
        }
    }

    /// Alternatives up to the closing parenthesis or the end; returns the product of the counters inside.
    fn sequence(&mut self, depth: usize) -> Result<u32, PatternError> {
        if depth > MAX_DEPTH {
            return Err(PatternError::TooDeep);
        }
        let (mut last, mut most) = (Last::Nothing, 1);
        loop {
            let Some(c) = self.rest.next() else {
                return if depth == 0 { Ok(most) } else { Err(PatternError::Group) };
            };
            last = match c {
                ')' if depth == 0 => return Err(PatternError::Group),
                ')' => return Ok(most),
                '|' => {
                    self.out.push('|');
                    Last::Nothing
                }
                '(' => self.group(depth)?,
                '[' => self.class()?,
                '\\' => self.escape(last)?,
                '^' | '$' | '.' => {
                    self.out.push(c);
                    Last::Atom(1)
                }
                '*' | '+' | '?' => {
                    self.repeat(last, 1)?;
                    self.out.push(c);
                    self.lazy();
                    Last::Repeated
                }
                '{' => self.counter(last, &mut most)?,
                literal => self.literal(literal),
            };
            if let Last::Atom(inside) = last {
                most = most.max(inside);
            }
        }
    }

    fn literal(&mut self, c: char) -> Last {
        push_literal(&mut self.out, c);
        Last::Atom(1)
    }

    /// Whether the last item can be repeated up to `times`; returns the product of counters.
    fn repeat(&self, last: Last, times: u32) -> Result<u32, PatternError> {
        match last {
            Last::Atom(inside) => match inside.checked_mul(times.max(1)) {
                Some(product) if product <= MAX_REPEAT => Ok(product),
                _ => Err(PatternError::RepeatCount),
            },
            Last::Repeated => Err(PatternError::NestedRepeat),
            Last::Nothing | Last::Flags => Err(PatternError::NothingToRepeat),
        }
    }

    fn lazy(&mut self) {
        if self.take_if("?") {
            self.out.push('?');
        }
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else is a literal brace.
    fn counter(&mut self, last: Last, most: &mut u32) -> Result<Last, PatternError> {
        let Some((text, min, max)) = counter_text(self.rest.as_str()) else {
            return Ok(self.literal('{'));
        };
        let (min, max) = (min.ok_or(PatternError::RepeatCount)?, max.ok_or(PatternError::RepeatCount)?);
        let bounded = max.unwrap_or(min);
        if min > MAX_REPEAT || bounded > MAX_REPEAT || bounded < min {
            return Err(PatternError::RepeatCount);
        }
        *most = (*most).max(self.repeat(last, bounded)?);
        let length = text.len();
        self.out.push('{');
        self.out.push_str(text);
        self.rest = self.rest.as_str().get(length..).unwrap_or("").chars();
        self.lazy();
        Ok(Last::Repeated)
    }

    /// After the opening parenthesis.
    fn group(&mut self, depth: usize) -> Result<Last, PatternError> {
        if !self.take_if("?") {
            self.out.push('(');
        } else if self.take_if("P<") || self.take_if("<") {
            let name = self.until('>').ok_or(PatternError::Group)?;
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(PatternError::Group);
            }
            // There are no references to groups, so the name is dropped.
            self.out.push('(');
        } else if self.flags()? {
            return Ok(Last::Flags);
        }
        let inside = self.sequence(depth + 1)?;
        self.out.push(')');
        Ok(Last::Atom(inside))
    }

    /// After `(?`: flags up to `:` (`false`, the group continues) or `)` (`true`).
    fn flags(&mut self) -> Result<bool, PatternError> {
        let (mut on, mut off, mut negated) = (String::new(), String::new(), false);
        let alone = loop {
            match self.rest.next() {
                Some(flag @ ('i' | 'm' | 's' | 'U')) if negated => off.push(flag),
                Some(flag @ ('i' | 'm' | 's' | 'U')) => on.push(flag),
                Some('-') if !negated => negated = true,
                Some(end @ (':' | ')')) if !negated || !off.is_empty() => break end == ')',
                _ => return Err(PatternError::Group),
            }
        };
        // The last setting of a flag counts; `regex` accepts each flag once.
        let unique = |flags: &str, but: &str| {
            ['i', 'm', 's', 'U']
                .into_iter()
                .filter(|f| flags.contains(*f) && !but.contains(*f))
                .collect()
        };
        let (on, off): (String, String) = (unique(&on, &off), unique(&off, ""));
        let minus = if off.is_empty() { "" } else { "-" };
        match (alone, on.is_empty() && off.is_empty()) {
            (true, true) => {}
            (true, false) => self.out.push_str(&format!("(?{on}{minus}{off})")),
            (false, _) => self.out.push_str(&format!("(?{on}{minus}{off}:")),
        }
        Ok(alone)
    }

    fn until(&mut self, end: char) -> Option<String> {
        let (found, rest) = self.rest.as_str().split_once(end)?;
        self.rest = rest.chars();
        Some(found.to_owned())
    }

    /// After a backslash, outside a class.
    fn escape(&mut self, last: Last) -> Result<Last, PatternError> {
        let next = self.peek().ok_or(PatternError::Escape)?;
        let written = match next {
            'A' => r"\A",
            'z' => r"\z",
            'b' => r"(?-u:\b)",
            'B' => return Err(PatternError::NoEqual),
            'Q' => {
                self.rest.next();
                return Ok(self.quoted(last));
            }
            _ => {
                let mut members = String::new();
                let atom = if self.class_escape(&mut members)? {
                    format!("[{members}]")
                } else {
                    let mut literal = String::new();
                    push_literal(&mut literal, self.char_escape()?);
                    literal
                };
                self.out.push_str(&atom);
                return Ok(Last::Atom(1));
            }
        };
        self.rest.next();
        self.out.push_str(written);
        Ok(Last::Atom(1))
    }

    /// Literal text up to `\E` or the end.
    fn quoted(&mut self, last: Last) -> Last {
        let text = self.rest.as_str();
        let (text, rest) = text.split_once(r"\E").unwrap_or((text, ""));
        let mut last = last;
        for c in text.chars() {
            push_literal(&mut self.out, c);
            last = Last::Atom(1);
        }
        self.rest = rest.chars();
        last
    }

    /// After `[`.
    fn class(&mut self) -> Result<Last, PatternError> {
        let mut members = String::from("[");
        if self.take_if("^") {
            members.push('^');
        }
        let mut first = true;
        loop {
            match self.peek().ok_or(PatternError::Class)? {
                ']' if !first => break,
                '[' if self.rest.as_str().starts_with("[:") && self.rest.as_str().contains(":]") => self.posix_class(&mut members)?,
                '\\' if self.class_member(&mut members)? => {}
                _ => self.range(&mut members)?,
            }
            first = false;
        }
        self.rest.next();
        members.push(']');
        self.out.push_str(&members);
        Ok(Last::Atom(1))
    }

    fn posix_class(&mut self, members: &mut String) -> Result<(), PatternError> {
        let (text, rest) = self.rest.as_str().split_once(":]").ok_or(PatternError::Class)?;
        let name = text.strip_prefix("[:").unwrap_or(text);
        if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(PatternError::Class);
        }
        members.push_str(&format!("[:{name}:]"));
        self.rest = rest.chars();
        Ok(())
    }

    /// An escape within a class for several characters; `false` and nothing read if it is for one.
    fn class_member(&mut self, members: &mut String) -> Result<bool, PatternError> {
        let before = self.rest.clone();
        self.rest.next();
        if self.class_escape(members)? {
            return Ok(true);
        }
        self.rest = before;
        Ok(false)
    }

    fn range(&mut self, members: &mut String) -> Result<(), PatternError> {
        let low = self.class_char()?;
        push_code(members, low);
        let rest = self.rest.as_str();
        if rest.starts_with('-') && !rest.starts_with("-]") && rest.len() > 1 {
            self.rest.next();
            let high = self.class_char()?;
            if high < low {
                return Err(PatternError::Class);
            }
            members.push('-');
            push_code(members, high);
        }
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, PatternError> {
        match self.rest.next().ok_or(PatternError::Class)? {
            '\\' => self.char_escape(),
            c => Ok(c),
        }
    }

    /// `\d`, `\p{Greek}` and similar after the backslash, as members of a class; `false` and nothing read if it is none.
    fn class_escape(&mut self, members: &mut String) -> Result<bool, PatternError> {
        let set = match self.peek().ok_or(PatternError::Escape)? {
            'd' => DIGIT.to_owned(),
            's' => SPACE.to_owned(),
            'w' => WORD.to_owned(),
            'D' => format!("[^{DIGIT}]"),
            'S' => format!("[^{SPACE}]"),
            'W' => format!("[^{WORD}]"),
            'p' | 'P' => {
                let negated = self.rest.next() == Some('P');
                members.push_str(&self.property(negated)?);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.rest.next();
        members.push_str(&set);
        Ok(true)
    }

    /// After `\p` or `\P`.
    fn property(&mut self, negated: bool) -> Result<String, PatternError> {
        let name = if self.take_if("{") {
            self.until('}').ok_or(PatternError::Class)?
        } else {
            self.rest.next().ok_or(PatternError::Class)?.to_string()
        };
        let (name, negated) = match name.strip_prefix('^') {
            Some(name) => (name, !negated),
            None => (name.as_str(), negated),
        };
        let letter = if negated { 'P' } else { 'p' };
        match name {
            "Any" if negated => Ok(r"[^\x{0}-\x{10FFFF}]".to_owned()),
            "Any" => Ok(r"\x{0}-\x{10FFFF}".to_owned()),
            name if CATEGORIES.contains(&name) => Ok(format!(r"\{letter}{{{name}}}")),
            name if name.len() > 2 && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_') && name.starts_with(char::is_uppercase) => {
                let script = format!(r"\{letter}{{sc={name}}}");
                regex::Regex::new(&script).map_err(|_| PatternError::Class)?;
                Ok(script)
            }
            _ => Err(PatternError::Class),
        }
    }

    /// One character after the backslash.
    fn char_escape(&mut self) -> Result<char, PatternError> {
        let c = self.rest.next().ok_or(PatternError::Escape)?;
        match c {
            'a' => Ok('\u{7}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\u{b}'),
            'x' => self.hexadecimal(),
            // A single digit would be a back-reference.
            '1'..='7' if !matches!(self.peek(), Some('0'..='7')) => Err(PatternError::Escape),
            '0'..='7' => self.octal(c),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
            _ => Err(PatternError::Escape),
        }
    }

    fn octal(&mut self, first: char) -> Result<char, PatternError> {
        let mut value = first.to_digit(8).unwrap_or(0);
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                break;
            };
            self.rest.next();
            value = value * 8 + digit;
        }
        char::from_u32(value).ok_or(PatternError::Escape)
    }

    fn hexadecimal(&mut self) -> Result<char, PatternError> {
        let digits = if self.take_if("{") {
            self.until('}').ok_or(PatternError::Escape)?
        } else {
            self.rest.by_ref().take(2).collect()
        };
        let valid = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
        let value = valid.then(|| u32::from_str_radix(&digits, 16).ok()).flatten();
        value.and_then(char::from_u32).ok_or(PatternError::Escape)
    }
}

/// A counter after its brace: its text with the closing brace, minimum and maximum (`None` inside: out of range).
#[expect(clippy::type_complexity, reason = "used once, right above")]
fn counter_text(text: &str) -> Option<(&str, Option<u32>, Option<Option<u32>>)> {
    let (inside, _) = text.split_once('}')?;
    let (min, max) = inside.split_once(',').map_or((inside, None), |(min, max)| (min, Some(max)));
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
        plain.then(|| digits.parse::<u32>().ok())
    };
    let min = number(min)?;
    let max = match max {
        None => min.map(Some),
        Some("") => Some(None),
        Some(digits) => number(digits)?.map(Some),
    };
    Some((text.get(..=inside.len())?, min, max))
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c)
    } else {
        push_code(out, c)
    }
}

fn push_code(out: &mut String, c: char) {
    out.push_str(&format!(r"\x{{{:X}}}", c as u32));
}
