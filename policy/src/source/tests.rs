use super::*;

const LIST: &str = r#"[
    {"command": ["a", "b\u003c"], "n": [9, 15], "none": null, "raw": `x\y`, "yes": true},
    # a comment with "quotes" and [
    {"command": ["ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]},
]"#;

#[test]
fn a_constant_becomes_a_value_and_lines_keep_their_numbers() {
    let text = format!("package policy\n\ncontainers := {LIST}\n\nlast := 1\n");
    let source = read(&text).unwrap();
    assert_eq!(
        source.text,
        "package policy\n\ncontainers := casemate_constant(0)\n\n\n\n\n\nlast := 1\n"
    );
    assert_eq!(source.constants[0][0]["command"][1], Value::from("b<"));
    assert_eq!(source.constants[0][0]["raw"], Value::from(r"x\y"));
    assert_eq!(source.constants[0][1]["command"].as_array().unwrap().len(), 1);
}

#[test]
fn forbidden_characters_are_found_in_constants_too() {
    let text = format!("package policy\ncontainers := {LIST}\n");
    assert!(read(&text).is_ok());
    for (from, to) in [("\"a\"", "\"\0\""), ("\"a\"", "\"\u{feff}\""), ("# a comment", "# \0")] {
        let refused = read(&text.replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains("illegal"), "{to:?}: {refused}");
    }
}

#[test]
fn equal_texts_share_one_value() {
    let same = r#"{"a": ["x", "y"], "b": {"c": "x"}, "d": ["x", "y" ], "e": [ # x
"x", "y"]}"#;
    let text = format!(
        "package policy\nlist := [{same}, {same}, [], {{}}, {}]\n",
        format!("{same},").repeat(4)
    );
    let source = read(&text).unwrap();
    let list = source.constants[0].as_array().unwrap();
    assert_eq!(list.len(), 8);
    let expected = Value::from_json_str(r#"{"a": ["x", "y"], "b": {"c": "x"}, "d": ["x", "y"], "e": ["x", "y"]}"#).unwrap();
    assert!([0, 1, 4, 5, 6, 7].iter().all(|index| list[*index] == expected));
    assert_eq!((&list[2], &list[3]), (&Value::new_array(), &Value::new_object()));
}

#[test]
fn anything_but_a_constant_rule_stays_in_the_text() {
    for text in [
        format!("package p\nx := {} if input.a\n", LIST),
        format!("package p\ny if {{\nx := {}\n}}\n", LIST),
        format!("package p\n  x := {}\n", LIST),
        format!("package p\ny if\nx := {}\n", LIST),
        format!("package p\nx := {}\n", LIST.replace("null", "input.x")),
        format!("package p\nx := {}\n", LIST.replace("15", "1.5")),
        format!("package p\nx := {}\n", LIST.replace("\"n\"", "\"command\"")),
        format!("package p\nx := {}[0]\n", LIST),
        "package p\nx := [1, 2]\n".to_owned(),
    ] {
        assert_eq!(read(&text).unwrap().text, text);
    }
}

#[test]
fn impure_built_ins_are_refused() {
    let refused = read("package p\n\nx if http.send({\"url\": \"http://h\"})\n").unwrap_err();
    assert_eq!(refused.to_string(), "line 3: http.send is not available to policies");
    assert!(read("package p\nx := rand.intn(\"s\", 5)\n").is_err());
    // The same words are harmless in a string, in a comment or as the policy's own names.
    assert!(read("package p\nx := \"http.send(\" # time.now_ns()\n").is_ok());
    assert!(read("package p\nimport data.time\nx := time.mine(1)\n").is_ok());
}

#[test]
fn only_listed_functions_and_the_policy_s_own_are_called() {
    for name in [
        "time.now_ns",
        "opa.runtime",
        "net.lookup_ip_addr",
        "uuid.rfc4122",
        "crypto.md5",
        "json.match_schema",
        "casemate_state",
        "nowhere",
    ] {
        let refused = read(&format!("package p\n\nx := {name}(\"a\")\n")).unwrap_err().to_string();
        assert_eq!(refused, format!("line 3: {name} is not available to policies"));
    }
    for text in [
        "package p\ndefault f(_) := 1\nf(x) := x if x > 1\ny := f(2)\n",
        "package p\nimport data.p as me\nf(x) := x\ny := me.f(2) + data.p.f(3)\n",
        "package p\nimport data.framework.f\ny := f(2)\n",
        "package p\ny := {1} & set()\nz if not (1 in (y | {2}))\n",
        "package p\ny := data.framework.f(1)\n",
    ] {
        assert!(read(text).is_ok(), "{text}: {:?}", read(text));
    }
}

#[test]
fn the_interpreter_has_every_listed_function() {
    for name in builtins::BUILTINS.iter().filter(|name| **name != "set" && **name != "print") {
        let mut engine = crate::interpreter::engine();
        let call = |arguments: &str| format!("package p\nx := {name}({arguments})\n");
        crate::functions::register(&mut engine).unwrap();
        engine.add_policy("p.rego".to_owned(), call("1")).unwrap();
        let unknown = engine
            .eval_rule("data.p.x".to_owned())
            .is_err_and(|error| error.to_string().contains("could not find"));
        assert!(!unknown, "{name}");
    }
}

#[test]
fn unterminated_and_deeply_nested_texts_are_refused() {
    assert_eq!(
        read("package p\nx := \"no end\n").unwrap_err().to_string(),
        "line 2, column 13: non-terminated string"
    );
    assert!(read("package p\nx := [1\n").is_err());
    assert!(read("package p\nx := 1]\n").is_err());
    for piece in ["-", "+1", "[0]", ".a", "|{1}"] {
        assert!(read(&format!("package p\nx := y{}\n", piece.repeat(10_000))).is_err(), "{piece}");
    }
}

#[test]
fn recursive_functions_are_refused() {
    assert!(read("package p\nf(x) := f(x)\n").is_err());
    assert!(read("package p\nf(x) := y if {\n y := g(x)\n}\ng(x) := data.p.f(x)\n").is_err());
    assert!(read("package p\nimport data.p as me\nf(x) := me.f(x)\n").is_err());
    assert!(read("package p\nf(x) := g(x)\ng(x) := x\ny := f(g(1))\n").is_ok());
    assert!(read("package p\nget(x) := object.get(x, 1, 2)\nf(x) := data.framework.f(x)\n").is_ok());
}

#[test]
fn names_of_the_metadata_are_found() {
    let source = read("package p\na := data.metadata.mine[x]\nb := data.metadata[\"yours\"]\n").unwrap();
    assert_eq!(source.metadata.into_iter().collect::<Vec<_>>(), ["mine", "yours"]);
}

#[test]
fn brackets_nest_deeply() {
    let nested = |open: &str, close: &str, depth: usize| format!("package p\nx := {}input.a{}\n", open.repeat(depth), close.repeat(depth));
    for (open, close) in [
        ("[", "]"),
        ("{", "}"),
        ("{\"a\": ", "}"),
        ("count([", "])"),
        ("(", ")"),
        ("[1, ", "]"),
        ("[\n", "]"),
    ] {
        assert!(
            read(&nested(open, close, 30)).is_ok(),
            "{open}: {:?}",
            read(&nested(open, close, 30))
        );
        let deep = nested(open, close, 400);
        assert!(matches!(read(&deep), Err(SourceError::Syntax(error)) if error.limit), "{open}");
        assert!(check(&deep).is_err());
    }
    assert!(read(&format!("package p\nx := [{}]\n", "[[[[y]]]],\n".repeat(10_000))).is_ok());
    for depth in [5, 20, 100, 500] {
        let constant = |open: &str, close: &str| format!("package p\nx := [\"a\", {}1{}]\n", open.repeat(depth), close.repeat(depth));
        assert!(read(&constant("[", "]")).is_ok(), "{depth}");
        assert!(read(&constant("{\"a\": ", "}")).is_ok(), "{depth}");
    }
    // A comprehension is parsed once for each one around it.
    assert!(read(&nested("[1 | ", "]", 30)).is_err());
}
