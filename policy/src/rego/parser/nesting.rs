//! Finds constants that nest deeply. They are read without recursion over the grammar, and the interpreter gets their value.

use std::collections::HashMap;

use super::super::lexer::{Lexeme, Token};
use super::super::literal::constant;

/// Constants of fewer levels are parsed like any term.
const MIN_DEPTH: usize = 6;

/// The outermost constant lists and objects of at least [`MIN_DEPTH`] levels: the token behind each, by its first token.
pub(super) fn literals(text: &str, lexemes: &[Lexeme]) -> HashMap<usize, usize> {
    struct Open {
        first: usize,
        constant: bool,
        depth: usize,
    }
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for (index, lexeme) in lexemes.iter().enumerate() {
        match lexeme.token {
            Token::Sign("[" | "{") => open.push(Open {
                first: index,
                constant: true,
                depth: 1,
            }),
            Token::Sign("]" | "}") => {
                let Some(closed) = open.pop() else { break };
                if let Some(outer) = open.last_mut() {
                    outer.constant &= closed.constant;
                    outer.depth = outer.depth.max(closed.depth + 1);
                }
                if closed.constant && closed.depth >= MIN_DEPTH {
                    // Those inside this one are part of it.
                    while found.last().is_some_and(|(first, _)| *first > closed.first) {
                        found.pop();
                    }
                    found.push((closed.first, index + 1));
                }
            }
            Token::Sign("," | ":" | "-") | Token::Text | Token::Number => {}
            Token::Name if matches!(text.get(lexeme.start..lexeme.end), Some("true" | "false" | "null")) => {}
            _ => {
                if let Some(inner) = open.last_mut() {
                    inner.constant = false;
                }
            }
        }
    }
    // A reference into a list, `x[…]`, is no list.
    let is_index = |first: usize| {
        let before = first.checked_sub(1).and_then(|before| lexemes.get(before));
        lexemes.get(first).is_some_and(|lexeme| !lexeme.apart)
            && before.is_some_and(|before| matches!(before.token, Token::Name | Token::Sign("]" | "}" | ")")))
    };
    let place = |(first, behind): &(usize, usize)| {
        let (start, end) = (lexemes.get(*first)?.start, lexemes.get(behind - 1)?.end);
        constant(text.get(start..end)?).map(|_| (*first, *behind))
    };
    found.iter().filter(|(first, _)| !is_index(*first)).filter_map(place).collect()
}
