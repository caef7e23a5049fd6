//! Tests of the TOML: every document is what it was after it was written and read, and each fault has its name.

use super::*;
use proptest::prelude::*;
use registry_rules::{Role, TagLevels};

fn roles() -> impl Strategy<Value = MemberRoles> {
    proptest::collection::btree_map("[a-z][a-z0-9._-]{0,6}", proptest::sample::select(&Role::ALL), 0..4)
}

fn levels() -> impl Strategy<Value = Levels> {
    let level = || proptest::option::of(proptest::sample::select(&MinimumLevel::ALL));
    (level(), level())
        .prop_filter("one of them is there", |(push, delete)| push.is_some() || delete.is_some())
        .prop_map(|(push, delete)| Levels { push, delete })
}

fn tag_levels() -> impl Strategy<Value = Option<TagLevels>> {
    let level = || proptest::sample::select(&MinimumLevel::ALL);
    proptest::option::of((level(), level()).prop_map(|(push, delete)| TagLevels { push, delete }))
}

fn content(path: &str) -> impl Strategy<Value = ProjectContent> + use<> {
    let pattern = proptest::string::string_regex(&format!("{path}[a-z0-9*]{{0,5}}")).unwrap();
    let rules = proptest::collection::btree_map(pattern, levels(), 0..5);
    let pattern = "[a-z\"'# =\\[\\]]{1,6}|\\\\d|é\"\\\\\\\\'''";
    let pattern = pattern.prop_filter("an expression", |text| TagRule::parts(text, None, None).is_ok());
    let tag_rules = proptest::collection::btree_map(pattern, tag_levels(), 0..=TagRule::MOST);
    (any::<bool>(), roles(), rules, tag_rules).prop_map(|(public, members, rules, tag_rules)| ProjectContent {
        visibility: if public { Visibility::Public } else { Visibility::Private },
        members,
        rules,
        tag_rules,
    })
}

fn document() -> impl Strategy<Value = Document> {
    let groups = proptest::collection::btree_map("g[a-z0-9]{1,4}", roles(), 0..4);
    let paths = proptest::collection::btree_set("p[a-z0-9]{1,4}/[a-z]{1,4}", 0..4);
    let projects = paths.prop_flat_map(|paths| {
        paths
            .into_iter()
            .map(|path| (Just(path.clone()), content(&path)))
            .collect::<Vec<_>>()
    });
    (groups, projects).prop_map(|(groups, projects)| Document {
        groups: groups.into_iter().map(|(path, roles)| (path.parse().unwrap(), roles)).collect(),
        projects: projects
            .into_iter()
            .map(|(path, content)| (path.parse().unwrap(), content))
            .collect(),
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(document in document()) {
        prop_assert_eq!(Document::parse(&document.to_toml()), Ok(document));
    }

    #[test]
    fn never_panics(text in "(\\[\\[(group|project)\\]\\]\n|path = \"[a-z/]{0,3}\"\n|members = \\{ a = \"owner\" \\}\n|[ -~\n]{0,9}){0,6}") {
        let _ = Document::parse(&text);
    }
}

#[test]
fn each_fault_is_named() {
    let project = |rest: &str| format!("[[project]]\npath = \"g/p\"\nvisibility = \"public\"\n{rest}");
    for (text, says) in [
        ("nonsense = 1".to_owned(), "form"),
        ("[[group]]\npath = \"G\"".to_owned(), "not the path"),
        ("[[group]]\npath = \"g\"\n[[group]]\npath = \"g\"".to_owned(), "twice"),
        ("[[group]]\npath = \"g/p\"\n".to_owned() + &project(""), "twice"),
        (project("").replace("public", "secret"), "visibility"),
        (project("members = { Ann = \"owner\" }"), "Ann"),
        (project("members = { ann = \"boss\" }"), "boss"),
        (project("rules = [{ pattern = \"g/q\", push = \"owner\" }]"), "start with"),
        (project("rules = [{ pattern = \"g/p\" }]"), "minimum access role"),
        (
            project("rules = [{ pattern = \"g/p\", push = \"owner\" }, { pattern = \"g/p\", push = \"admin\" }]"),
            "twice",
        ),
        (project("tag_rules = [{ pattern = \"(\" }]"), "RE2"),
        (project("tag_rules = [{ pattern = \"a\", push = \"owner\" }]"), "both"),
        (
            project(&format!(
                "tag_rules = [{}]",
                (0..6).map(|n| format!("{{ pattern = \"{n}\" }},")).collect::<String>()
            )),
            "more than 5",
        ),
        ("#".repeat(DOCUMENT_MAX_BYTES + 1), "bytes"),
    ] {
        let error = Document::parse(&text).unwrap_err();
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }
}
