//! Checks of patterns: invalid and ambiguous ones.

use policy::check_pattern;

use super::Reporter;

/// Checks a pattern of strategy `re2`.
pub(super) fn check(field: &str, pattern: &str, report: &mut Reporter<'_>) {
    if let Err(error) = check_pattern(pattern) {
        report.error(field, format!("pattern {pattern:?} never matches: {error}"));
    } else if !report.strict && has_bare_alternation(pattern) {
        report.warning(
            field,
            format!("pattern {pattern:?} is anchored as a whole, its alternatives are not; write ({pattern})"),
        );
    }
}

/// Whether there is a `|` outside groups: `a|b` is matched as `^a|b$`, which accepts `a…` and `…b`.
fn has_bare_alternation(pattern: &str) -> bool {
    let mut characters = pattern.chars().peekable();
    let (mut depth, mut class, mut literal) = (0usize, false, false);
    while let Some(character) = characters.next() {
        match character {
            '\\' if literal => literal = characters.next_if_eq(&'E').is_none(),
            '\\' => literal = characters.next() == Some('Q'),
            _ if literal => {}
            ']' => class = false,
            '[' if !class => {
                class = true;
                // A bracket right after the opening bracket or its caret is a literal.
                characters.next_if_eq(&'^');
                characters.next_if_eq(&']');
            }
            _ if class => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_alternations_outside_groups_count() {
        for bare in ["a|b", "A=1|A=2", "(a)|b", "[a]|b", "\\(a|b", "\\Qa\\E|b", "[]]|b"] {
            assert!(has_bare_alternation(bare), "{bare}");
        }
        for whole in ["(a|b)", "A=(1|2)", "[a|b]", "a\\|b", "\\Qa|b\\E", "[]|]", "[^]|]", "((a|b)|c)"] {
            assert!(!has_bare_alternation(whole), "{whole}");
        }
    }
}
