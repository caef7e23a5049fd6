//! The token endpoint: who gets what, in which answer.

use crate::running::{ISSUER, PASSWORD, Running, SERVICE, access, basic, claims, part, soon, verifies};
use registry_rules::{Role, Visibility};
use registry_store::{AuditOutcome, NewToken};
use reqwest::Method;
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

const PUSH_REFUSED: &str = "container protected; you are not allowed to push new package";
const DELETE_REFUSED: &str = "container protected; you are not allowed to delete this package";

/// A private project with a user of each role, and a public one.
async fn flight() -> (Running, i64) {
    let service = Running::start().await;
    let project = service.project("flightjs/flight", Visibility::Private).await;
    for role in Role::ALL {
        service.member(role.word(), project, role).await;
    }
    service.administrator("root").await;
    service.project("open/source", Visibility::Public).await;
    (service, project)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gets_what_it_gives() {
    let (service, _) = flight().await;
    let scope = "repository:flightjs/flight/app:push,pull,delete,*";
    for (name, actions) in [
        ("guest", None),
        ("reporter", Some("pull")),
        ("developer", Some("push,pull")),
        ("maintainer", Some("push,pull,delete,*")),
        ("owner", Some("push,pull,delete,*")),
        ("root", Some("push,pull,delete,*")),
    ] {
        let granted = service.granted(Some((name, PASSWORD)), &[scope]).await;
        let expected: Vec<String> = actions
            .iter()
            .map(|actions| format!("repository:flightjs/flight/app:{actions}"))
            .collect();
        assert_eq!(granted, expected, "{name}");
    }
    let anonymous = service.granted(None, &[scope, "repository:open/source/x:pull,push"]).await;
    assert_eq!(anonymous, ["repository:open/source/x:pull"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_refuse_whole_requests_with_their_texts() {
    let (service, project) = flight().await;
    service
        .rule(project, "flightjs/flight/locked*", Some("no_one"), Some("no_one"))
        .await;
    let rule = service.rule(project, "flightjs/flight/team*", Some("owner"), None).await;
    let asked = |name: &'static str, scopes: &'static [&'static str]| {
        let service = &service;
        async move { service.ask(Some((name, PASSWORD)), scopes).await }
    };
    let refused = asked("root", &["repository:flightjs/flight/locked:pull,push"]).await;
    assert_eq!(refused.error(), (403, "DENIED", PUSH_REFUSED));
    let refused = asked("root", &["repository:flightjs/flight/locked:delete"]).await;
    assert_eq!(refused.error(), (403, "DENIED", DELETE_REFUSED));
    let refused = asked(
        "maintainer",
        &["repository:flightjs/flight/x:push repository:flightjs/flight/team:*"],
    )
    .await;
    assert_eq!(refused.error(), (403, "DENIED", PUSH_REFUSED));
    let entry = service.audit().await.remove(0).entry;
    assert_eq!(
        (entry.outcome, entry.project, entry.rule),
        (AuditOutcome::Refused, Some(project), Some(rule))
    );
    assert_eq!(
        (entry.actor.as_str(), entry.subject.as_str()),
        ("maintainer", "flightjs/flight/team")
    );
    assert!(entry.detail.contains("owner"), "{}", entry.detail);
    // Each repository of a token has an entry of its own, whatever else was asked for.
    let unknown: Vec<String> = (0..8).map(|n| format!("repository:{}{n}:pull", "a".repeat(240))).collect();
    let mut scopes: Vec<&str> = unknown.iter().map(String::as_str).collect();
    scopes.extend(["repository:flightjs/flight/x:pull", "repository:flightjs/flight/y:push"]);
    let granted = service.granted(Some(("developer", PASSWORD)), &scopes).await;
    assert_eq!(granted, ["repository:flightjs/flight/x:pull", "repository:flightjs/flight/y:push"]);
    let trail: Vec<_> = service.audit().await.into_iter().take(2).map(|record| record.entry).collect();
    let subjects: Vec<_> = trail.iter().map(|entry| (entry.subject.as_str(), entry.project)).collect();
    assert_eq!(
        subjects,
        [("flightjs/flight/y", Some(project)), ("flightjs/flight/x", Some(project))]
    );
    // The role goes first: who may not push anyway is not refused, and pulls.
    let granted = service
        .granted(Some(("reporter", PASSWORD)), &["repository:flightjs/flight/locked:pull,push"])
        .await;
    assert_eq!(granted, ["repository:flightjs/flight/locked:pull"]);
    let granted = service
        .granted(Some(("owner", PASSWORD)), &["repository:flightjs/flight/team-1:push,delete"])
        .await;
    assert_eq!(granted, ["repository:flightjs/flight/team-1:push,delete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_holds_from_the_next_request_on() {
    let (service, project) = flight().await;
    let ask = || service.ask(Some(("maintainer", PASSWORD)), &["repository:flightjs/flight/a:push"]);
    for _ in 0..5 {
        assert_eq!(ask().await.status, 200);
        let rule = service.rule(project, "flightjs/flight/a", Some("owner"), None).await;
        assert_eq!(ask().await.status, 403);
        service.store.delete_rule("test", project, rule).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_requests_for_nothing() {
    let (service, _) = flight().await;
    let login = service.ask(Some(("guest", PASSWORD)), &[]).await;
    assert_eq!((login.status, access(&login)), (200, Vec::new()));
    assert_eq!(service.ask(None, &[]).await.error(), (403, "DENIED", "access forbidden"));
    for nothing in [
        "repository:nobody/knows:pull",
        "repository(plugin):open/source:pull",
        "x",
        "repository:OPEN/source:pull",
        "registry:catalog:*",
    ] {
        assert!(service.granted(None, &[nothing]).await.is_empty(), "{nothing}");
    }
    assert_eq!(
        service.granted(Some(("root", PASSWORD)), &["registry:catalog:*"]).await,
        ["registry:catalog:*"]
    );
    assert!(service.granted(Some(("owner", PASSWORD)), &["registry:catalog:*"]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_as_distribution_reads_it() {
    let (service, _) = flight().await;
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let before = now();
    let answer = service
        .ask(Some(("developer", PASSWORD)), &["repository:flightjs/flight:pull"])
        .await;
    let after = now();
    let token = answer.json["token"].as_str().unwrap();
    assert_eq!(answer.json["access_token"], token);
    assert_eq!(answer.json["expires_in"], 300);
    assert!(answer.json.get("refresh_token").is_none() && answer.json.get("scope").is_none());
    let claims = claims(&answer);
    let issued = claims["iat"].as_i64().unwrap();
    assert!((before..=after).contains(&issued));
    assert_eq!(answer.json["issued_at"], token_service::rfc3339(issued));
    assert_eq!(claims["exp"].as_i64(), Some(issued + 300));
    assert_eq!(claims["nbf"].as_i64(), Some(issued - 5));
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"]),
        (&ISSUER.into(), &SERVICE.into(), &"developer".into())
    );
    let header = part(token, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JWT".into()));
    assert_eq!(header["x5c"].as_array().unwrap().len(), 1);
    assert!(verifies(token, &service.file("token.crt")));
    let mut numbers = HashSet::new();
    for _ in 0..20 {
        let answer = service.ask(None, &["repository:open/source:pull"]).await;
        assert!(numbers.insert(crate::running::claims(&answer)["jti"].to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_request_that_clients_send() {
    let (service, _) = flight().await;
    let login = [("authorization", basic("developer", PASSWORD))];
    let query = "/jwt/auth?account=developer&client_id=docker&offline_token=true&service=container_registry\
                 &scope=repository%3Aflightjs%2Fflight%2Fa%3Apush%2Cpull&scope=repository:flightjs/flight/b:pull+repository:flightjs/flight/a:pull";
    let answer = service.send(Method::GET, query, &login, None).await;
    assert_eq!(
        access(&answer),
        ["repository:flightjs/flight/a:push,pull", "repository:flightjs/flight/b:pull"]
    );
    // containerd
    let form = format!(
        "client_id=containerd-client&grant_type=password&username=developer&password={}&service=container_registry\
         &scope=repository%3Aflightjs%2Fflight%3Apull+repository%3Aflightjs%2Fflight%3Apull%2Cpush",
        PASSWORD.replace(' ', "+")
    );
    let kind = ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned());
    let answer = service
        .send(Method::POST, "/jwt/auth", std::slice::from_ref(&kind), Some(form.clone()))
        .await;
    assert_eq!(access(&answer), ["repository:flightjs/flight:pull,push"]);
    assert_eq!(answer.json["scope"], "repository:flightjs/flight:pull,push");
    assert_eq!(answer.json["expires_in"], 300);
    assert!(answer.json.get("refresh_token").is_none());
    // The header instead of the form's fields; both of them are one too many.
    let bare = "grant_type=password&service=other";
    let with_header = [kind.clone(), login[0].clone()];
    let answer = service.send(Method::POST, "/jwt/auth", &with_header, Some(bare.to_owned())).await;
    assert_eq!((answer.status, &claims(&answer)["aud"]), (200, &"other".into()));
    assert_eq!(service.send(Method::POST, "/jwt/auth", &with_header, Some(form)).await.status, 401);
    assert_eq!(
        service.send(Method::POST, "/jwt/auth", &[kind], Some(bare.to_owned())).await.status,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_has_an_answer() {
    let (service, _) = flight().await;
    for query in [
        "",
        "?",
        "?service=",
        "?service=unknown&scope=repository:open/source:pull",
        "?service=%ff",
        "?scope",
    ] {
        let answer = service.send(Method::GET, &format!("/jwt/auth{query}"), &[], None).await;
        assert_eq!((answer.status, answer.error().1), (404, "UNSUPPORTED"), "{query}");
    }
    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    for (kind, body, status) in [
        (
            Some(&form),
            "grant_type=refresh_token&refresh_token=x&service=container_registry",
            400,
        ),
        (Some(&form), "grant_type=authorization_code&service=container_registry", 400),
        (Some(&form), "service=container_registry", 400),
        (Some(&form), "", 400),
        (Some(&form), "grant_type=password&service=x&username=a&password=b", 404),
        (None, "grant_type=password", 415),
    ] {
        let answer = service
            .send(
                Method::POST,
                "/jwt/auth",
                kind.map_or(&[], std::slice::from_ref),
                Some(body.to_owned()),
            )
            .await;
        assert_eq!((answer.status, answer.error().1), (status, "UNSUPPORTED"), "{body}");
    }
    let json = [("content-type", "application/json".to_owned())];
    assert_eq!(
        service.send(Method::POST, "/jwt/auth", &json, Some("{}".to_owned())).await.status,
        415
    );
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        assert_eq!(service.send(method, "/jwt/auth", &[], None).await.status, 405);
    }
    assert_eq!(service.send(Method::GET, "/nowhere", &[], None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_deploy_tokens() {
    let (service, project) = flight().await;
    let other = service.project("flightjs/other", Visibility::Private).await;
    let reporter = service.store.current().await.unwrap().user("reporter").unwrap().id;
    let expires = soon();
    let job = service
        .token(&NewToken::Job {
            user: reporter,
            project,
            expires,
        })
        .await;
    for login in ["ci-token", "gitlab-ci-token"] {
        let granted = service
            .granted(
                Some((login, &job)),
                &["repository:flightjs/flight:push,pull,delete,*", "repository:flightjs/other:pull"],
            )
            .await;
        assert_eq!(granted, ["repository:flightjs/flight:push,pull,delete"]);
    }
    assert_eq!(service.ask(Some(("reporter", &job)), &[]).await.status, 401);
    let deploy = NewToken::Deploy {
        project,
        name: "deploy".to_owned(),
        login: "deployer".to_owned(),
        read: false,
        write: true,
        expires: None,
    };
    let deploy = service.token(&deploy).await;
    let granted = service
        .granted(Some(("deployer", &deploy)), &["repository:flightjs/flight:push,pull,delete"])
        .await;
    assert_eq!(granted, ["repository:flightjs/flight:push"]);
    let _ = other;
    // A rule asks for a role: the job has its user's, the deploy token none.
    service.rule(project, "flightjs/flight", Some("maintainer"), None).await;
    for (login, secret) in [("ci-token", &job), ("deployer", &deploy)] {
        let refused = service.ask(Some((login, secret)), &["repository:flightjs/flight:push"]).await;
        assert_eq!(refused.error(), (403, "DENIED", PUSH_REFUSED), "{login}");
    }
}
