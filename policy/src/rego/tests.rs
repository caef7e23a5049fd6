//! Each kind of text that OPA loads and the interpreter's own parser does not, and the other way round.

use regorus::Value;

use crate::interpreter::Interpreter;
use crate::{Enforcer, PolicyError};

/// The value of the rule `x`.
fn value(rules: &str) -> Result<Value, String> {
    let text = if rules.contains("package ") {
        rules.to_owned()
    } else {
        format!("package policy\n{rules}\n")
    };
    let mut interpreter = Interpreter::new(&text).map_err(|error| error.to_string())?;
    interpreter
        .value("data.policy.x", Value::new_object())
        .map_err(|error| error.to_string())
}

fn json(text: &str) -> Value {
    Value::from_json_str(text).unwrap()
}

#[test]
fn what_opa_loads_has_the_value_it_has_there() {
    for (rules, expected) in [
        // Imports behind rules.
        ("a := 1\nimport future.keywords.in\nimport data.policy.a as b\nx := b", "1"),
        ("a := 1\nimport data.policy.a as b # why\nimport rego.v1\nx if { b == 1 }", "true"),
        ("import input.a\nx := 1", "1"),
        ("\u{feff}package policy\nx := 1", "1"),
        // Functions without a body or a value.
        ("f(\"a\")\nf(\"b\")\nx := f(\"a\")", "true"),
        ("f([1, _])\nx if f([1, 2])", "true"),
        ("default f(_) := 3\nf(y) := 1 if y == 1\nx := f(2)", "3"),
        // A suffix on a later line than its term begins.
        (
            "x := v if { v := {\"a\": {\"b\": {\"c\": {\"d\": {\"e\": {\"f\":\n{\"g\": 1}}}}}}}[\"a\"][\"b\"][\"c\"][\"d\"][\"e\"] }",
            "{\"f\": {\"g\": 1}}",
        ),
        ("x if { {\"a\": 1}[\"no\"] }\nelse := 2", "2"),
        ("x if { [[[[[[[1]]]]]]]\nfalse }\nelse := 2", "2"),
        ("x if { {\"a\": {\"b\": 1}}[\"no\"] }\nelse := 2", "2"),
        (
            "x if { {\"a\": {\"b\": {\"c\": {\"d\": {\"e\": {\"f\":{}}}}}}}[\"no\"] }\nelse := 2",
            "2",
        ),
        (
            "x if { {\"a\": {\"b\": {\"c\": {\"d\": {\"e\": {\"f\":\n{}}}}}}}[\"no\"] }\nelse := 2",
            "2",
        ),
        // What is replaced directly behind a word.
        ("x := 2 if$`a` in {\"a\"}", "2"),
        ("x if({\"a\": 1}).a == 1", "true"),
        ("f(1)x := f(1)", "true"),
        ("x := $\"\\ufeff{1}\"", "\"\\ufeff1\""),
        // Control characters, surrogates, numbers.
        ("x := \"a\tb\u{1}\u{7f}\"", "\"a\\tb\\u0001\u{7f}\""),
        ("x := \"\\ud800a\\udc00\"", "\"\u{fffd}a\u{fffd}\""),
        ("x := \"\\ud83d\\ude00\"", "\"\u{1f600}\""),
        ("x if 1e400 > 1e399", "true"),
        ("x := 1e400 == 10 * 1e399", "true"),
        ("x := -1e-400 <= 0", "true"),
        ("x := [.5, -.5, - 3, 15.0]", "[0.5, -0.5, -3, 15]"),
        ("x := 3 -1", "2"),
        ("x := 7 - - 2", "9"),
        ("x := 1+2*3-4/2%3-.5", "4.5"),
        // Deep nesting.
        (
            "x := [[[[[[[[[[[[[[[[[[[[[[[[[\"a\", 1.5, true]]]]]]]]]]]]]]]]]]]]]]]]][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]",
            "\"a\"",
        ),
        (
            "y := 1\nx := [[[[[[[[[[[[[[[[[[[[y]]]]]]]]]]]]]]]]]]]] == [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]",
            "true",
        ),
        (
            "y := 1\nx := {{{{{{{{{{{{{{{{{{{{y}}}}}}}}}}}}}}}}}}}} == {{{{{{{{{{{{{{{{{{{{1}}}}}}}}}}}}}}}}}}}}",
            "true",
        ),
        (
            "y := 1\nx := {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": y}}}}}}}}}.a.a.a.a.a.a.a",
            "{\"a\": {\"a\": 1}}",
        ),
        (
            "y := 1\nx := ((((((((((((((((((((((((((((((((((((((((y + 1))))))))))))))))))))))))))))))))))))))))",
            "2",
        ),
        // Walk.
        ("x := [v | walk({\"a\": [1]}, [_, v])]", "[{\"a\": [1]}, [1], 1]"),
        ("x if { walk({\"a\": 1}, [[\"a\"], 1]) }", "true"),
        ("x := count([p | [p, _] := walk([1, 2])])", "3"),
        // Template strings.
        ("y := 3\nx := $\"a {y} b\"", "\"a 3 b\""),
        ("x := $\"{1}{\"q\"}{true}{null}\"", "\"1qtruenull\""),
        (
            "x := $\"{[1, \"a\"]} {{\"k\": {1}}} \\{}\\n\"",
            "\"[1, \\\"a\\\"] {\\\"k\\\": {1}} {}\\n\"",
        ),
        ("x := $`raw \\n {1 + 1}`", "\"raw \\\\n 2\""),
        ("x := $\"{input.none}!\"", "\"<undefined>!\""),
        ("x := $\"{$\"{\"in\"}ner\"}\"", "\"inner\""),
        ("x := $\"{concat(\"\", [\"(\", \"}\"])}\"", "\"(}\""),
        // Blanks and commas that only OPA takes.
        ("x := [,1, 2,]", "[1, 2]"),
        ("y := {1}\rx := y | {,2}", "[1, 2]"),
        ("f (y) := y if true\nx := f(1)", "1"),
        ("y := {\"k\": [7]}\nx := (y).k[0]", "7"),
        ("x if { }", "true"),
        ("a.b[\"c d\"] := 1\na.in := 2\nx := a", "{\"b\": {\"c d\": 1}, \"in\": 2}"),
        ("x := 1 if { false } else := 2 if { false } else := 3", "3"),
        ("m[k] := v if { some k, v in {\"a\": 1} }\nx := m.a", "1"),
        ("x contains 1\nx contains 2 if true", "[1, 2]"),
        ("x := {k: v | some k, v in [1, 2]; v > 1}", "{\"1\": 2}"),
        ("x := contains(\"abc\", \"b\")", "true"),
        ("x if { every k, v in [1] { k < v } }", "true"),
        ("x := {\"a\": 1, \"a\": 2}.a", "2"),
    ] {
        let got = value(rules);

        let got = got.unwrap_or_else(|error| panic!("{rules}: {error}"));
        assert_eq!(
            serde_json::to_value(&got).unwrap(),
            serde_json::to_value(json(expected)).unwrap(),
            "{rules}"
        );
    }
}

#[test]
fn what_opa_refuses_does_not_load() {
    for (rules, place) in [
        ("x := 1 \0", "line 2, column 8: illegal null character"),
        ("x := 1 # \0", "line 2, column 10: illegal null character"),
        ("x := \"\u{feff}\"", "line 2, column 7: illegal byte-order mark"),
        ("x := 1 \x0c", "line 2, column 8: illegal token"),
        ("x := 0x10", "line 2, column 6: illegal number format"),
        ("x := 01", "line 2, column 6: "),
        ("x := 1.", "line 2, column 6: expected fraction"),
        ("x := 1e99999", "line 2, column 6: "),
        ("x := \"\\x\"", "line 2, column 7: illegal escape sequence"),
        ("x := \"\\u12g4\"", "line 2, column 7: illegal escape sequence"),
        ("x := \"\\n\t\"", "line 2, column 6: "),
        ("x := -y", "line 2, column 7: "),
        ("allow", "line 2, column 1: "),
        ("a.b", "line 2, column 1: "),
        ("a.b.c", "line 2, column 1: "),
        ("x := 1; y := 2", "line 2, column 1: "),
        ("x { true }", "line 2, column 3: "),
        ("x[y] { y := 1 }", "line 2, column 6: "),
        ("x := 1 if { true } else { true }", "line 2, column 25: "),
        ("x if { a b }", "line 2, column 10: "),
        ("in := 1", "line 2, column 1: "),
        ("\u{f1} := 1", "line 2, column 1: illegal token"),
        (
            "import future.keywords.in\nimport future.keywords.in",
            "line 3, column 1: import must not shadow",
        ),
        ("import data.a.y\nimport data.b.y", "line 3, column 1: import must not shadow"),
        ("import future.other", "line 2, column 1: invalid import"),
        ("import future.keywords.maybe", "line 2, column 1: unexpected keyword"),
        ("import policy.a", "line 2, column 8: "),
        ("import data.a.in", "line 2, column 8: "),
        ("input := 1", "line 2, column 1: "),
        ("default x := y", "line 2, column 1: "),
        ("default x", "line 2, column 1: "),
        ("default f(y, y) := 1", "line 2, column 1: "),
        ("f(y) contains y", "line 2, column 6: "),
        ("x if not some y", "line 2, column 10: "),
        ("x if { some f(1) }", "line 2, column 13: "),
        ("x := f (1)", "line 2, column 8: "),
        ("x := \"abc\"[0]", "line 2, column 11: "),
        ("x := $\"{y\"", "line 2, column "),
        ("x := $\"{y := 1}\"", "line 2, column 9: "),
        ("x := {1: 2, 3}", "line 2, column 14: "),
        ("x := [1 2]", "line 2, column 9: "),
        ("count([1])", "line 2: the name of rule count"),
        ("x := no.such_fn(1)", "line 2: no.such_fn is not available"),
        ("x := undefinedvar", "--> policy.rego:2:6"),
        ("y := .5\nx := [.5, undefinedvar]", "--> policy.rego:3:11"),
    ] {
        let Err(error) = value(rules) else { panic!("{rules} loads") };
        assert!(error.contains(place), "{rules}: {error}");
    }
    for text in ["", "# only a comment", "x := 1\npackage policy", "{\"allow_all\": true}"] {
        assert!(matches!(Enforcer::new(text), Err(PolicyError::Compile(_))), "{text}");
    }
}

#[test]
fn positions_are_those_of_the_policy_at_evaluation_too() {
    let text = "package policy\nimport future.keywords.in\nx := 1 if .5 < 1\nx := 2 if .5 < 2\n";
    let mut interpreter = Interpreter::new(text).unwrap();
    let error = interpreter.value("data.policy.x", Value::new_object()).unwrap_err().to_string();
    assert!(error.contains("policy.rego:4:") && error.contains("| x := 2 if .5 < 2"), "{error}");
}

#[test]
fn long_expressions_are_refused_before_they_are_walked() {
    for piece in ["+1", "[0]", ".a", "|{1}", " in y", "(1)[0]", " == 1"] {
        assert!(value(&format!("x := y{}", piece.repeat(200_000))).is_err(), "{piece}");
    }
    assert!(value(&format!("x := {}1{}", "(".repeat(100_000), ")".repeat(100_000))).is_err());
    assert!(value(&format!("x := {}", "$\"{".repeat(100_000))).is_err());
}

#[test]
fn a_text_that_is_wrong_at_its_end_is_read_once() {
    for open in ["[a|", "{a|", "{k: v|", "[", "(", "{"] {
        let text = format!("x := {}b,,", open.repeat(40));
        assert!(value(&text).is_err(), "{open}");
    }
}

#[test]
fn a_walk_of_the_module_is_not_the_built_in_one() {
    assert!(
        value("walk(y) := y + 1\nx := walk(1)").is_err(),
        "the interpreter evaluates no such call"
    );
}
