//! The REST API: rules, projects and members, by whom, in which shapes.

use crate::running::{Answer, PASSWORD, Running, basic, soon};
use registry_rules::{Role, Visibility};
use registry_store::NewToken;
use reqwest::Method;
use serde_json::{Value, json};

const RULES: &str = "/api/v4/projects/flightjs%2Fflight/registry/protection/repository/rules";

async fn flight() -> (Running, i64) {
    let service = Running::start().await;
    let project = service.project("flightjs/flight", Visibility::Private).await;
    for role in Role::ALL {
        service.member(role.word(), project, role).await;
    }
    service.administrator("root").await;
    service.user("stranger").await;
    (service, project)
}

async fn call(service: &Running, name: &str, method: Method, target: &str, body: Option<Value>) -> Answer {
    let headers = [
        ("authorization", basic(name, PASSWORD)),
        ("content-type", "application/json".to_owned()),
    ];
    let headers = if body.is_some() { &headers[..] } else { &headers[..1] };
    service.send(method, target, headers, body.map(|body| body.to_string())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_lives() {
    let (service, project) = flight().await;
    let wanted = json!({ "repository_path_pattern": "flightjs/flight/*", "minimum_access_level_for_push": "owner" });
    let created = call(&service, "maintainer", Method::POST, RULES, Some(wanted)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let id = created.json["id"].as_i64().unwrap();
    let mut rule = json!({
        "id": id, "project_id": project, "repository_path_pattern": "flightjs/flight/*",
        "minimum_access_level_for_push": "owner", "minimum_access_level_for_delete": null,
    });
    assert_eq!(created.json, rule);
    let by_number = format!("/api/v4/projects/{project}/registry/protection/repository/rules");
    for target in [RULES, by_number.as_str()] {
        let listed = call(&service, "owner", Method::GET, target, None).await;
        assert_eq!((listed.status, &listed.json), (200, &json!([rule])));
    }
    assert_eq!(
        service
            .ask(Some(("maintainer", PASSWORD)), &["repository:flightjs/flight/a:push"])
            .await
            .status,
        403
    );
    let target = format!("{RULES}/{id}");
    let change = json!({ "minimum_access_level_for_push": "", "minimum_access_level_for_delete": "admin" });
    let changed = call(&service, "maintainer", Method::PATCH, &target, Some(change)).await;
    rule["minimum_access_level_for_push"] = Value::Null;
    rule["minimum_access_level_for_delete"] = "admin".into();
    assert_eq!((changed.status, &changed.json), (200, &rule));
    let last = json!({ "minimum_access_level_for_delete": "" });
    let refused = call(&service, "maintainer", Method::PATCH, &target, Some(last)).await;
    let text = "A rule must have at least a minimum access role for push or delete.";
    assert_eq!((refused.status, &refused.json), (422, &json!({ "message": { "error": text } })));
    let removed = call(&service, "root", Method::DELETE, &target, None).await;
    assert_eq!((removed.status, removed.text.as_str()), (204, ""));
    assert_eq!(call(&service, "root", Method::DELETE, &target, None).await.status, 404);
    assert_eq!(call(&service, "root", Method::PATCH, &target, Some(json!({}))).await.status, 404);
    let trail: Vec<String> = service.audit().await.into_iter().map(|record| record.entry.actor).collect();
    assert!(trail.iter().any(|actor| actor == "maintainer") && trail.iter().any(|actor| actor == "root"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_does_as_well() {
    let (service, _) = flight().await;
    let headers = [
        ("authorization", basic("owner", PASSWORD)),
        ("content-type", "application/x-www-form-urlencoded".to_owned()),
    ];
    let body = "repository_path_pattern=flightjs%2Fflight%2Fa&minimum_access_level_for_delete=no_one".to_owned();
    assert_eq!(service.send(Method::POST, RULES, &headers, Some(body)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_rules_have_the_peers_statuses() {
    let (service, project) = flight().await;
    service.rule(project, "flightjs/flight/taken", Some("owner"), None).await;
    let (pattern, push) = ("repository_path_pattern", "minimum_access_level_for_push");
    for (body, status, says) in [
        (json!({}), 400, "repository_path_pattern is missing"),
        (
            json!({ pattern: "flightjs/flight/a" }),
            400,
            "at least one parameter must be provided",
        ),
        (
            json!({ pattern: "flightjs/flight/a", push: "developer" }),
            400,
            "does not have a valid value",
        ),
        (
            json!({ pattern: "flightjs/flight/a", push: 40 }),
            400,
            "does not have a valid value",
        ),
        (
            json!({ pattern: ["flightjs/flight/a"], push: "owner" }),
            400,
            "repository_path_pattern is invalid",
        ),
        (
            json!({ pattern: "flightjs/flight/a", push: "" }),
            422,
            "at least a minimum access role",
        ),
        (json!({ pattern: "", push: "owner" }), 422, "can't be blank"),
        (json!({ pattern: "*", push: "owner" }), 422, "valid container repository path"),
        (
            json!({ pattern: "other/a", push: "owner" }),
            422,
            "start with the project's full path",
        ),
        (
            json!({ pattern: "flightjs/flight/taken", push: "admin" }),
            422,
            "already been taken",
        ),
        (
            json!({ pattern: format!("flightjs/flight/{}", "a".repeat(300)), push: "admin" }),
            422,
            "too long",
        ),
    ] {
        let answer = call(&service, "maintainer", Method::POST, RULES, Some(body.clone())).await;
        assert_eq!(answer.status, status, "{body} {}", answer.text);
        assert!(answer.text.contains(says), "{body} {}", answer.text);
    }
    for body in ["", "{", "[]", "\"x\"", "{\"a\":", "\u{0}"] {
        let headers = [
            ("authorization", basic("owner", PASSWORD)),
            ("content-type", "application/json".to_owned()),
        ];
        assert_eq!(
            service.send(Method::POST, RULES, &headers, Some(body.to_owned())).await.status,
            400,
            "{body}"
        );
    }
    let headers = [("authorization", basic("owner", PASSWORD)), ("content-type", "text/xml".to_owned())];
    assert_eq!(
        service.send(Method::POST, RULES, &headers, Some("<a/>".to_owned())).await.status,
        415
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_no_more_than_needed() {
    let (service, project) = flight().await;
    let rule = service.rule(project, "flightjs/flight/a", Some("owner"), None).await;
    let one = format!("{RULES}/{rule}");
    for (name, status) in [("stranger", 404), ("guest", 403), ("reporter", 403), ("developer", 403)] {
        for (method, target) in [
            (Method::GET, RULES),
            (Method::POST, RULES),
            (Method::PATCH, one.as_str()),
            (Method::DELETE, one.as_str()),
        ] {
            assert_eq!(
                call(&service, name, method.clone(), target, None).await.status,
                status,
                "{name} {method}"
            );
        }
    }
    for target in [
        "/api/v4/projects/999/members",
        "/api/v4/projects/no%2Fsuch",
        "/api/v4/projects/%00",
        "/api/v4/projects/-1",
    ] {
        assert_eq!(call(&service, "root", Method::GET, target, None).await.status, 404, "{target}");
    }
    for rule in ["999", "x", "99999999999999999999", "%2e%2e"] {
        assert_eq!(
            call(&service, "root", Method::DELETE, &format!("{RULES}/{rule}"), None)
                .await
                .status,
            404,
            "{rule}"
        );
    }
    assert_eq!(service.send(Method::GET, RULES, &[], None).await.status, 401);
    let wrong = [("authorization", basic("owner", "wrong"))];
    assert_eq!(service.send(Method::GET, RULES, &wrong, None).await.status, 401);
    assert_eq!(
        service
            .send(Method::GET, RULES, &[("private-token", "cmp_wrong".to_owned())], None)
            .await
            .status,
        401
    );
    // A rule of one project is not reached through another.
    let other = service.project("flightjs/other", Visibility::Private).await;
    let through = format!("/api/v4/projects/{other}/registry/protection/repository/rules/{rule}");
    assert_eq!(call(&service, "root", Method::DELETE, &through, None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_use_the_api_if_they_say_so() {
    let (service, project) = flight().await;
    let owner = service.store.current().await.unwrap().user("owner").unwrap().id;
    let personal = |api| NewToken::Personal {
        user: owner,
        name: "t".to_owned(),
        read: true,
        write: true,
        api,
        expires: None,
    };
    let (with, without) = (service.token(&personal(true)).await, service.token(&personal(false)).await);
    let job = service
        .token(&NewToken::Job {
            user: owner,
            project,
            expires: soon(),
        })
        .await;
    for (name, value, status) in [
        ("private-token", with.clone(), 200),
        ("authorization", format!("Bearer {with}"), 200),
        ("authorization", basic("owner", &with), 200),
        ("private-token", without, 403),
        ("private-token", job, 403),
        ("private-token", PASSWORD.to_owned(), 401),
    ] {
        let answer = service.send(Method::GET, RULES, &[(name, value)], None).await;
        assert_eq!(answer.status, status, "{name}");
    }
    service.store.set_blocked("test", owner, true).await.unwrap();
    assert_eq!(service.send(Method::GET, RULES, &[("private-token", with)], None).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_live() {
    let (service, _) = flight().await;
    let new = json!({ "path": "open/source", "visibility": "public" });
    assert_eq!(
        call(&service, "owner", Method::POST, "/api/v4/projects", Some(new.clone()))
            .await
            .status,
        403
    );
    let created = call(&service, "root", Method::POST, "/api/v4/projects", Some(new.clone())).await;
    assert_eq!((created.status, &created.json["path_with_namespace"]), (201, &"open/source".into()));
    assert_eq!(
        call(&service, "root", Method::POST, "/api/v4/projects", Some(new)).await.status,
        409
    );
    for (body, status) in [
        (json!({}), 400),
        (json!({ "path": "A" }), 400),
        (json!({ "path": "a", "visibility": "secret" }), 400),
    ] {
        assert_eq!(
            call(&service, "root", Method::POST, "/api/v4/projects", Some(body)).await.status,
            status
        );
    }
    let listed = |answer: &Answer| -> Vec<String> {
        let all = answer.json.as_array().unwrap();
        all.iter()
            .map(|project| project["path_with_namespace"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = call(&service, "guest", Method::GET, "/api/v4/projects", None).await;
    assert_eq!(listed(&all), ["flightjs/flight", "open/source"]);
    assert_eq!(
        listed(&call(&service, "stranger", Method::GET, "/api/v4/projects", None).await),
        ["open/source"]
    );
    let found = call(
        &service,
        "root",
        Method::GET,
        "/api/v4/projects?search=light&page=1&per_page=1",
        None,
    )
    .await;
    assert_eq!(
        (listed(&found), &found.headers["x-total"]),
        (vec!["flightjs/flight".to_owned()], &"1".parse().unwrap())
    );
    let second = call(&service, "root", Method::GET, "/api/v4/projects?page=2&per_page=1", None).await;
    assert_eq!((listed(&second).len(), &second.headers["x-next-page"]), (1, &"".parse().unwrap()));
    assert!(listed(&call(&service, "root", Method::GET, "/api/v4/projects?page=2147483648", None).await).is_empty());
    for query in ["page=0", "page=x", "per_page=0", "per_page=-1", "page=99999999999999999999"] {
        let target = format!("/api/v4/projects?{query}");
        assert_eq!(call(&service, "root", Method::GET, &target, None).await.status, 400, "{query}");
    }
    let target = "/api/v4/projects/flightjs%2Fflight";
    let public = json!({ "visibility": "public" });
    assert_eq!(
        call(&service, "maintainer", Method::PUT, target, Some(public.clone())).await.status,
        403
    );
    let changed = call(&service, "owner", Method::PATCH, target, Some(public)).await;
    assert_eq!((changed.status, &changed.json["visibility"]), (200, &"public".into()));
    assert_eq!(service.granted(None, &["repository:flightjs/flight:pull"]).await.len(), 1);
    assert_eq!(call(&service, "owner", Method::PUT, target, Some(json!({}))).await.status, 400);
    assert_eq!(call(&service, "maintainer", Method::DELETE, target, None).await.status, 403);
    assert_eq!(call(&service, "owner", Method::DELETE, target, None).await.status, 204);
    assert_eq!(call(&service, "owner", Method::GET, target, None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_below_who_adds_them() {
    let (service, _) = flight().await;
    let members = "/api/v4/projects/flightjs%2Fflight/members";
    let id = |name: &'static str| {
        let service = &service;
        async move { service.store.current().await.unwrap().user(name).unwrap().id }
    };
    let stranger = id("stranger").await;
    assert_eq!(call(&service, "stranger", Method::GET, members, None).await.status, 404);
    assert_eq!(
        call(&service, "guest", Method::GET, members, None)
            .await
            .json
            .as_array()
            .unwrap()
            .len(),
        5
    );
    let new = |level: Value| json!({ "user_id": stranger, "access_level": level });
    assert_eq!(
        call(&service, "developer", Method::POST, members, Some(new(10.into())))
            .await
            .status,
        403
    );
    assert_eq!(
        call(&service, "maintainer", Method::POST, members, Some(new(50.into())))
            .await
            .status,
        403
    );
    for (body, status) in [
        (new(15.into()), 400),
        (json!({ "user_id": stranger }), 400),
        (json!({ "access_level": 30 }), 400),
        (json!({ "user_id": 12345, "access_level": 30 }), 404),
        (json!({ "username": "nobody", "access_level": 30 }), 404),
        (json!({ "username": "stranger", "access_level": "developer" }), 201),
        (new(30.into()), 409),
    ] {
        assert_eq!(
            call(&service, "maintainer", Method::POST, members, Some(body.clone())).await.status,
            status,
            "{body}"
        );
    }
    let one = format!("{members}/{stranger}");
    let shown = call(&service, "stranger", Method::GET, &one, None).await;
    assert_eq!(
        shown.json,
        json!({ "id": stranger, "username": "stranger", "access_level": 30, "role": "developer" })
    );
    let level = |level: i32| Some(json!({ "access_level": level }));
    assert_eq!(call(&service, "maintainer", Method::PUT, &one, level(50)).await.status, 403);
    assert_eq!(call(&service, "owner", Method::PUT, &one, level(50)).await.status, 200);
    // Now above the maintainer, who can neither lower nor remove it.
    assert_eq!(call(&service, "maintainer", Method::PUT, &one, level(10)).await.status, 403);
    assert_eq!(call(&service, "maintainer", Method::DELETE, &one, None).await.status, 403);
    assert_eq!(call(&service, "root", Method::DELETE, &one, None).await.status, 204);
    assert_eq!(call(&service, "root", Method::DELETE, &one, None).await.status, 404);
    assert_eq!(call(&service, "root", Method::PUT, &one, level(10)).await.status, 404);
    assert_eq!(call(&service, "root", Method::GET, &format!("{members}/x"), None).await.status, 404);
}
