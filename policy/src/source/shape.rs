//! What would keep the interpreter's parser for too long, or exhaust its stack: long expressions, brackets within brackets.

use super::{KEYWORDS, SourceError, line, starts_statement, tokens::Token};

/// Most operators, indices and dots in one rule: the interpreter's parser and evaluation recurse over them.
const MAX_OPERATORS: usize = 512;
/// Most signs in a row, which nest without brackets.
const MAX_SIGNS: usize = 8;
/// Most work that brackets within brackets may make. The interpreter's parser reads what stands first in a bracket twice, so that each
/// level there doubles the time: twenty of them are a minute.
const MAX_REPEATED: u64 = 1 << 16;
/// Brackets read no more often than this cost nothing worth counting.
const MIN_REPEATED: u64 = 16;

pub(super) fn refuse_long_expressions(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
    let (mut operators, mut signs) = (0, 0);
    for (index, token) in tokens.iter().enumerate() {
        if starts_statement(tokens, index) {
            operators = 0;
        }
        let at = match token {
            Token::Other(b'-', at) => {
                signs += 1;
                operators += 1;
                at
            }
            Token::Newline { .. } => continue,
            Token::Other(b'+' | b'*' | b'/' | b'%' | b'|' | b'&' | b'.', at) => {
                signs = 0;
                operators += 1;
                at
            }
            Token::Path(path, at) => {
                signs = 0;
                operators += path.matches('.').count();
                at
            }
            Token::Open(b'[', at) if matches!(tokens.get(index.wrapping_sub(1)), Some(Token::Close(..) | Token::Path(..))) => {
                signs = 0;
                operators += 1;
                at
            }
            Token::Other(_, at) | Token::Open(_, at) | Token::Close(_, at) | Token::Text(_, at) | Token::Number(_, at) => {
                signs = 0;
                at
            }
        };
        if operators > MAX_OPERATORS || signs > MAX_SIGNS {
            return Err(SourceError::TooLong(line(text, *at)));
        }
    }
    Ok(())
}

/// Counts how often the parser reads each bracket: once more than the one around it, where that is read twice.
pub(super) fn refuse_deep_brackets(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
    struct Around {
        /// How often it is read.
        times: u64,
        /// What comes next in it is read twice as often.
        first: bool,
        /// It can hold a list, an object, a comprehension or statements, rather than arguments or an index.
        doubles: bool,
    }
    let mut around: Vec<Around> = Vec::new();
    let (mut work, mut before) = (0, None);
    for token in tokens {
        match token {
            Token::Open(open, at) => {
                let times = match around.last() {
                    Some(outer) if outer.first && outer.doubles => outer.times.saturating_mul(2),
                    Some(outer) => outer.times,
                    None => 1,
                };
                if times >= MIN_REPEATED {
                    work = times.saturating_add(work);
                }
                if work > MAX_REPEATED {
                    return Err(SourceError::TooDeep(line(text, *at)));
                }
                let index = *open == b'[' && matches!(before, Some(Token::Path(name, _)) if !KEYWORDS.contains(&name));
                let doubles = *open != b'(' && !index;
                around.push(Around {
                    times,
                    first: true,
                    doubles,
                });
            }
            Token::Close(..) => {
                around.pop();
            }
            other => {
                if let Some(inner) = around.last_mut() {
                    match other {
                        Token::Other(b',', _) => inner.first = false,
                        Token::Other(b'|' | b';', _) => inner.first = true,
                        Token::Newline { .. } if !matches!(before, Some(Token::Other(b',', _))) => inner.first = true,
                        _ => {}
                    }
                }
            }
        }
        if !matches!(token, Token::Newline { .. }) {
            before = Some(*token);
        }
    }
    Ok(())
}
