//! Tag rules: their REST API, and what tokens say of them.

use crate::running::{PASSWORD, Running, basic, claims};
use registry_rules::{Role, Visibility};
use reqwest::Method;
use serde_json::{Value, json};

const RULES: &str = "/api/v4/projects/g%2Fa/registry/protection/tag/rules";

#[tokio::test(flavor = "multi_thread")]
async fn tag_rules_go_from_the_api_into_tokens() {
    let service = Running::start().await;
    let project = service.project("g/a", Visibility::Public).await;
    for role in [Role::Developer, Role::Maintainer] {
        service.member(role.word(), project, role).await;
    }
    service.administrator("root").await;
    let call = |name: &'static str, method: Method, target: String, body: Option<Value>| {
        let service = &service;
        async move {
            let headers = [
                ("authorization", basic(name, PASSWORD)),
                ("content-type", "application/json".to_owned()),
            ];
            service.send(method, &target, &headers, body.map(|body| body.to_string())).await
        }
    };
    let (pattern, push, delete) = (
        "tag_name_pattern",
        "minimum_access_level_for_push",
        "minimum_access_level_for_delete",
    );
    let meta = |name: &'static str, actions: &'static str| {
        let service = &service;
        async move {
            let scope = format!("repository:g/a/x:{actions}");
            let answer = service.ask(Some((name, PASSWORD)), &[&scope]).await;
            claims(&answer)["access"][0].get("meta").cloned()
        }
    };
    assert_eq!(meta("developer", "push").await, None);
    for (body, status) in [
        (json!({ pattern: "v.*", push: "owner" }), 400),
        (json!({ push: "owner", delete: "owner" }), 400),
        (json!({ pattern: "v.*", push: "developer", delete: "owner" }), 400),
        (json!({ pattern: "(", push: "owner", delete: "owner" }), 422),
        (json!({ pattern: "v.*", push: "owner", delete: "" }), 422),
        (json!({ pattern: "v.*", push: "maintainer", delete: "owner" }), 201),
        (json!({ pattern: "v.*", push: "maintainer", delete: "owner" }), 422),
        (json!({ pattern: "fixed", push: "", delete: null }), 201),
    ] {
        let answer = call("maintainer", Method::POST, RULES.to_owned(), Some(body.clone())).await;
        assert_eq!(answer.status, status, "{body} {}", answer.text);
    }
    assert_eq!(call("developer", Method::GET, RULES.to_owned(), None).await.status, 403);
    let listed = call("maintainer", Method::GET, RULES.to_owned(), None).await.json;
    assert_eq!(listed[1][push], Value::Null);
    assert_eq!(
        (&listed[0][pattern], &listed[0][push], &listed[0][delete]),
        (&"v.*".into(), &"maintainer".into(), &"owner".into())
    );
    let denied = "tag_deny_access_patterns";
    let fixed = json!(["fixed"]);
    assert_eq!(
        meta("maintainer", "push,delete").await,
        Some(json!({ denied: { "push": [], "delete": ["v.*"] }, "tag_immutable_patterns": fixed }))
    );
    assert_eq!(
        meta("developer", "push").await,
        Some(json!({ denied: { "push": ["v.*"] }, "tag_immutable_patterns": fixed }))
    );
    assert_eq!(
        meta("root", "push,delete").await,
        Some(json!({ denied: { "push": [], "delete": [] }, "tag_immutable_patterns": fixed }))
    );
    assert_eq!(meta("maintainer", "pull").await, None);
    let one = format!("{RULES}/{}", listed[0]["id"]);
    let changed = call("maintainer", Method::PATCH, one.clone(), Some(json!({ push: "admin" }))).await;
    assert_eq!(
        (changed.status, &changed.json[push], &changed.json[delete]),
        (200, &"admin".into(), &"owner".into())
    );
    assert_eq!(
        call("maintainer", Method::PATCH, one.clone(), Some(json!({ push: "" })))
            .await
            .status,
        422
    );
    assert_eq!(call("maintainer", Method::DELETE, one.clone(), None).await.status, 204);
    assert_eq!(call("maintainer", Method::DELETE, one, None).await.status, 404);
    for n in 0..4 {
        let body = json!({ pattern: format!("t{n}"), push: "owner", delete: "owner" });
        assert_eq!(call("root", Method::POST, RULES.to_owned(), Some(body)).await.status, 201);
    }
    let sixth = json!({ pattern: "t5", push: "owner", delete: "owner" });
    let refused = call("root", Method::POST, RULES.to_owned(), Some(sixth)).await;
    assert_eq!(
        refused.json["message"]["error"],
        "Maximum number of protection rules have been reached."
    );
}
