//! A tokenizer for Rego that separates code from strings and comments.

/// A token and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name with its dotted continuation.
    Path(&'a str, usize),
    /// A string literal with its quotes or backquotes.
    Text(&'a str, usize),
    /// A number.
    Number(&'a str, usize),
    Open(u8, usize),
    Close(u8, usize),
    /// The end of a line; `outside` of all brackets or not.
    Newline {
        outside: bool,
    },
    Other(u8, usize),
}

/// All tokens; blanks and comments are skipped.
///
/// # Errors
/// The offset of an unterminated string or an unbalanced bracket.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, usize> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 8);
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let piece = |end: usize| text.get(start..end).ok_or(start);
        let rest = bytes.get(at..).unwrap_or_default();
        let token = match byte {
            b' ' | b'\t' | b'\r' => continue,
            b'\n' => Token::Newline { outside: open.is_empty() },
            b'#' => {
                at += rest.iter().take_while(|b| **b != b'\n').count();
                continue;
            }
            b'"' => {
                at = end_of_string(bytes, at).ok_or(start)?;
                Token::Text(piece(at)?, start)
            }
            b'`' => {
                at += rest.iter().position(|b| *b == b'`').ok_or(start)? + 1;
                Token::Text(piece(at)?, start)
            }
            b'$' if matches!(rest.first(), Some(b'"' | b'`')) => {
                at = end_of_template(bytes, at).ok_or(start)?;
                Token::Text(piece(at)?, start)
            }
            b'(' | b'[' | b'{' => {
                open.push(start);
                Token::Open(byte, start)
            }
            b')' | b']' | b'}' => {
                open.pop().ok_or(start)?;
                Token::Close(byte, start)
            }
            b'0'..=b'9' => {
                at += rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'.').count();
                Token::Number(piece(at)?, start)
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                at = end_of_path(bytes, at);
                Token::Path(piece(at)?, start)
            }
            other => Token::Other(other, start),
        };
        tokens.push(token);
    }
    open.first().map_or(Ok(tokens), |start| Err(*start))
}

/// The offset after the closing quote; a string ends on its line.
fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            b'\n' => return None,
            _ => at += 1,
        }
    }
}

/// The offset after a template string, whose opening quote is at `at`. Its expressions may contain strings and templates.
fn end_of_template(bytes: &[u8], at: usize) -> Option<usize> {
    let mut quotes = vec![(*bytes.get(at)?, 0usize, false)];
    let mut at = at + 1;
    while let Some((quote, braces, inside)) = quotes.last_mut() {
        let byte = *bytes.get(at)?;
        at += 1;
        match byte {
            _ if !*inside && byte == *quote => drop(quotes.pop()),
            b'{' if !*inside => (*inside, *braces) = (true, 0),
            b'\\' if !*inside => at += usize::from(*quote == b'"' || bytes.get(at) == Some(&b'{')),
            b'\n' if !*inside && *quote == b'"' => return None,
            _ if !*inside => {}
            b'}' if *braces == 0 => *inside = false,
            b'{' => *braces += 1,
            b'}' => *braces -= 1,
            b'"' => at = end_of_string(bytes, at)?,
            b'`' => at += bytes.get(at..)?.iter().position(|b| *b == b'`')? + 1,
            b'#' => at += bytes.get(at..)?.iter().take_while(|b| **b != b'\n').count(),
            b'$' if matches!(bytes.get(at), Some(b'"' | b'`')) => {
                quotes.push((*bytes.get(at)?, 0, false));
                at += 1;
            }
            _ => {}
        }
    }
    Some(at)
}

fn end_of_path(bytes: &[u8], mut at: usize) -> usize {
    let letter = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    loop {
        match bytes.get(at) {
            Some(b) if b.is_ascii_alphanumeric() || *b == b'_' => at += 1,
            Some(b'.') if letter(at + 1) => at += 1,
            _ => return at,
        }
    }
}
