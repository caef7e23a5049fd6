use proptest::prelude::*;

use super::*;

fn found(pattern: &str, text: &str) -> Result<bool, PatternError> {
    Patterns::default().is_match(pattern, text, false)
}

#[test]
fn classes_by_letter_are_ascii() {
    assert_eq!(found(r"^\d$", "7"), Ok(true));
    assert_eq!(found(r"^\d$", "٧"), Ok(false), "an Arabic digit");
    assert_eq!(found(r"^\w+$", "naïve"), Ok(false));
    assert_eq!(found(r"^\W$", "ï"), Ok(true));
    assert_eq!(found(r"^\s$", "\u{b}"), Ok(false), "vertical tab is no space in RE2");
    assert_eq!(found(r"^[\s\d]$", "\u{a0}"), Ok(false));
    assert_eq!(found(r"^[^\D]$", "5"), Ok(true));
    assert_eq!(found(r"é\b", "é"), Ok(false), "é is no word character");
}

#[test]
fn operators_of_other_dialects_are_literals() {
    for text in ["a", "&", "b"] {
        assert_eq!(found("^[a&&b]$", text), Ok(true), "{text}");
    }
    for text in ["[", "a", "~"] {
        assert_eq!(found("^[[a~~]$", text), Ok(true), "{text}");
    }
    assert_eq!(found("^[--/]$", "."), Ok(true), "a range from - to /");
    assert_eq!(found("^{a}$", "{a}"), Ok(true));
    assert_eq!(found("^a{,2}$", "a{,2}"), Ok(true));
    assert_eq!(found("^a{01}$", "a{01}"), Ok(true));
    assert_eq!(found("^ #x$", " #x"), Ok(true));
}

#[test]
fn quoting_octal_and_hexadecimal() {
    assert_eq!(found(r"^\Qa.b*\E+$", "a.b**"), Ok(true));
    assert_eq!(found(r"^\Q^$", "^$"), Ok(true));
    assert_eq!(found(r"^\101\x42\x{43}$", "ABC"), Ok(true));
    assert_eq!(found(r"^[\x41-\103]$", "C"), Ok(true));
    assert_eq!(found(r"^\.\_\-$", "._-"), Ok(true));
}

#[test]
fn what_re2_refuses_is_refused() {
    for (pattern, error) in [
        ("a**", PatternError::NestedRepeat),
        ("a+*?", PatternError::NestedRepeat),
        ("*a", PatternError::NothingToRepeat),
        ("(|*)", PatternError::NothingToRepeat),
        ("a{1001}", PatternError::RepeatCount),
        ("(a{100}){11}", PatternError::RepeatCount),
        ("a{2,1}", PatternError::RepeatCount),
        ("a{99999999999}", PatternError::RepeatCount),
        (r"\1", PatternError::Escape),
        (r"\y", PatternError::Escape),
        (r"\Z", PatternError::Escape),
        (r"\C", PatternError::Escape),
        (r"\B", PatternError::NoEqual),
        ("a\\", PatternError::Escape),
        ("[b-a]", PatternError::Class),
        ("[[:nope:]]", PatternError::Class),
        (r"\p{Nope}", PatternError::Class),
        ("[a", PatternError::Class),
        ("(a", PatternError::Group),
        ("a)", PatternError::Group),
        ("(?x)a", PatternError::Group),
        ("(?i-)a", PatternError::Group),
        ("(?=a)", PatternError::Group),
    ] {
        assert_eq!(found(pattern, "a"), Err(error), "{pattern}");
    }
}

#[test]
fn flags_groups_and_properties() {
    assert_eq!(found("^(?i)straSSe$", "STRASSE"), Ok(true));
    assert_eq!(found("^(?i:a)b$", "AB"), Ok(false));
    assert_eq!(found("(?s)^.$", "\n"), Ok(true));
    assert_eq!(found("^.$", "\n"), Ok(false));
    assert_eq!(found("^(?P<x>a)(?<y>b)(?:c)$", "abc"), Ok(true));
    assert_eq!(found(r"^\p{Greek}\pL\P{^Lu}$", "αbC"), Ok(true));
    assert_eq!(found("a$", "a\n"), Ok(false), "the end is the very end");
    assert_eq!(found("(?ii-m)A", "a"), Ok(true));
}

#[test]
fn anchors_are_added_by_the_text_alone() {
    let anchored = |pattern: &str, text: &str| Patterns::default().is_match(pattern, text, true);
    assert_eq!(anchored("a", "ab"), Ok(false));
    assert_eq!(anchored("A=1|B=2", "A=1zzz"), Ok(true));
    assert_eq!(anchored(r"a\$", "a$b"), Ok(true));
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_an_error(pattern in ".{0,40}", text in ".{0,20}") {
        // A translated pattern must compile unless it is too large.
        let result = found(&pattern, &text);
        prop_assert_ne!(result, Err(PatternError::TooLarge));
    }

    #[test]
    fn syntax_heavy_text_is_a_pattern_or_an_error(pattern in r"[\\\[\](){}|*+?^$.,\-:<>PQEdDwWsSbxpUim0-9ab]{0,24}") {
        prop_assert_ne!(found(&pattern, "ab"), Err(PatternError::TooLarge));
    }

    #[test]
    fn a_quoted_text_matches_itself_only(text in "[^\\\\]{0,20}", other in ".{0,20}") {
        let pattern = format!(r"\A\Q{text}\E\z");
        prop_assert_eq!(found(&pattern, &text), Ok(true));
        prop_assert_eq!(found(&pattern, &other), Ok(text == other));
    }
}
