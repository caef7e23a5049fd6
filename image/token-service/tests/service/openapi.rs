//! The description is of this service: every path of it is served, by its methods and no others.

use crate::running::{DOCUMENT, PASSWORD, Running, basic};
use registry_rules::{Role, Visibility};
use reqwest::Method;
use std::collections::HashSet;

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

#[tokio::test(flavor = "multi_thread")]
async fn every_described_path_is_served_by_its_methods_alone() {
    let service = Running::start().await;
    let project = service.project("g/a", Visibility::Private).await;
    service.member("ann", project, Role::Maintainer).await;
    let served = service.send(Method::GET, "/openapi.json", &[], None).await;
    assert_eq!(&served.json, &*DOCUMENT);
    let headers = [("authorization", basic("ann", PASSWORD))];
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        let target = path.replace("{id}", &project.to_string());
        let target = target.replace("{user_id}", "999").replace("{protection_rule_id}", "999");
        for method in METHODS {
            let answer = service.send(method.clone(), &target, &headers, None).await;
            let described = item.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(answer.status != 405, described, "{method} {path}: {}", answer.status);
            if !described {
                assert!(answer.headers.contains_key("allow"), "{method} {path}");
            }
        }
    }
}

#[test]
fn references_and_names_are_whole() {
    let text = DOCUMENT.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{pointer}");
    }
    let mut names = HashSet::new();
    for item in DOCUMENT["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert!(names.insert(operation["operationId"].as_str().unwrap()));
        }
    }
}
