//! Limits that keep the interpreter's parser fast and its stack small: length of expressions, nesting of brackets.

use super::{KEYWORDS, SourceError, line, starts_statement, tokens::Token};

/// Maximum number of operators, indices and dots in one rule: the interpreter recurses over them.
const MAX_OPERATORS: usize = 512;
/// Maximum number of consecutive signs, which nest without brackets.
const MAX_SIGNS: usize = 8;
/// Maximum work for nested brackets. The interpreter's parser reads the first item in a bracket twice, so that each level of such
/// nesting doubles the time: twenty levels take a minute.
const MAX_REPEATED: u64 = 1 << 16;
/// Brackets that are read less often are not counted.
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

/// Counts how often the parser reads each bracket: twice as often as the enclosing one if it is the first item there.
pub(super) fn refuse_deep_brackets(text: &str, tokens: &[Token<'_>]) -> Result<(), SourceError> {
    struct Around {
        /// Number of times that it is read.
        times: u64,
        /// The next item in it is the first.
        first: bool,
        /// It is a list, an object, a comprehension or a block, not arguments or an index.
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
