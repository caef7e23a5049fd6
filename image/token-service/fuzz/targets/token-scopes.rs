//! The scopes of a token request: what is granted was asked for, once for each resource, and reads itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_rules::{Principal, Project, Projects, Role, Scopes, Visibility, decide};
use std::collections::HashMap;

fuzz_target!(|text: &str| {
    let scopes = Scopes::parse(text.lines());
    let read: Vec<String> = scopes.iter().map(|scope| scope.to_string()).collect();
    let again = Scopes::parse(read.iter().map(String::as_str));
    assert!(scopes.iter().eq(again.iter()));
    let path = "a".parse().expect("a name");
    let projects: Projects = [Project::new(1, path, Visibility::Public, Vec::new(), Vec::new())].into_iter().collect();
    let owner = HashMap::from([(1, Role::Owner)]);
    let granted = decide(&projects, &Principal::user(&owner, false), &scopes).result.expect("nothing is protected");
    for access in granted {
        let asked = scopes.iter().find(|scope| scope.resource == access.resource).expect("it was asked for");
        assert!(access.actions.iter().all(|action| asked.actions.has(action)));
        assert!(access.resource.name().split('/').next() == Some("a"));
    }
});
