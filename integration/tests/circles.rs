//! No two modules of a crate import each other, unless one contains the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Path of a module in its crate; the root's is empty.
type Module = Vec<String>;

/// Directories of the crates that are checked, relative to the workspace.
fn crates() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|member| workspace.join(member).join("src"))
        .collect()
}

/// Every module of the crate with its source, without tests and comments.
fn modules(src: &Path, below: &Path, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("bin") {
                modules(src, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let relative = path.strip_prefix(src).unwrap().with_extension("");
            let mut module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect::<Module>();
            if module == ["lib"] || module == ["main"] {
                module.clear();
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap());
            found.insert(module, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths of a use tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{tree}"));
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&format!("{prefix}{}", head.trim()), &inner[start..at], paths);
                }
                start = (at + 1).min(inner.len());
            }
            _ => {}
        }
    }
}

/// Paths in a source that begin with `crate`, `super` or `self`, in `use` declarations and in expressions.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for declaration in text.split("use ").skip(1) {
        if ["crate::", "super::", "self::"].iter().any(|start| declaration.starts_with(start)) {
            expand("", declaration.split(';').next().unwrap(), &mut paths);
        }
    }
    let of_path = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let words = text.split(|character| !of_path(character));
    let inside = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    paths.extend(inside.map(str::to_owned));
    paths
}

/// The innermost module that a path in `module` refers to.
fn target(module: &Module, path: &str, all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut parts = path.split("::").map(str::trim).peekable();
    let mut at = module.clone();
    match parts.next()? {
        "crate" => at.clear(),
        "self" => {}
        _ => {
            at.pop()?;
        }
    }
    while parts.next_if_eq(&"super").is_some() {
        at.pop()?;
    }
    for part in parts {
        at.push(part.to_owned());
        if !all.contains_key(&at) {
            at.pop();
            break;
        }
    }
    (at != *module && all.contains_key(&at)).then_some(at)
}

/// Pairs that import each other.
fn circles(all: &BTreeMap<Module, String>) -> Vec<String> {
    let edges = all.iter().flat_map(|(module, text)| {
        let targets = paths(text).into_iter().filter_map(|path| target(module, &path, all));
        targets.map(|target| (module.clone(), target)).collect::<Vec<_>>()
    });
    let edges = edges.collect::<BTreeSet<_>>();
    let apart = |a: &Module, b: &Module| !a.starts_with(b) && !b.starts_with(a);
    let mutual = edges
        .iter()
        .filter(|(a, b)| a < b && apart(a, b) && edges.contains(&(b.clone(), a.clone())));
    mutual.map(|(a, b)| format!("{} <-> {}", a.join("::"), b.join("::"))).collect()
}

#[test]
fn no_two_modules_import_each_other() {
    let mut found = Vec::new();
    for src in crates() {
        let mut all = BTreeMap::new();
        modules(&src, &src, &mut all);
        assert!(!all.is_empty(), "no sources in {}", src.display());
        found.extend(circles(&all).into_iter().map(|pair| format!("{}: {pair}", src.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_cycle_is_found_in_every_form_of_path() {
    let module = |path: &str, text: &str| (path.split("::").map(str::to_owned).collect::<Module>(), text.to_owned());
    let crate_of = |one: &str, other: &str| BTreeMap::from([module("a", one), module("b", other), module("b::c", "")]);
    let both = [
        ("use crate::b::Thing;", "use crate::a::Other;"),
        ("use crate::{\n    x,\n    b::{self, c::Deep},\n};", "use super::a;"),
        ("fn f() { crate::b::g() }", "use crate::{a::{One, Two}};"),
    ];
    for (one, other) in both {
        assert_eq!(circles(&crate_of(one, other)), ["a <-> b"], "{one}");
    }
    assert!(circles(&crate_of("use crate::b::Thing;", "")).is_empty());
    assert!(
        circles(&crate_of("use crate::b::c::Deep;", "use crate::a::X;")).is_empty(),
        "the child is another module"
    );
}
