//! Logins: wrong ones, those without any right, those that come too often, and what nobody may read of them.

use crate::running::{PASSWORD, Running, access, basic, claims, soon, until};
use registry_rules::{Role, Visibility};
use registry_store::{AuditOutcome, NewToken};
use reqwest::Method;

const DENIED: (u16, &str, &str) = (401, "UNAUTHORIZED", "HTTP Basic: Access denied");
const FORBIDDEN: (u16, &str, &str) = (403, "DENIED", "access forbidden");
const TOO_MANY: &str = "Access denied: too many failed authentication attempts from this network";

fn personal(user: i64, read: bool, write: bool, api: bool, expires: Option<i64>) -> NewToken {
    NewToken::Personal {
        user,
        name: "token".to_owned(),
        read,
        write,
        api,
        expires,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_never_nobody() {
    let service = Running::with("failed_logins = { per_address = 1000, per_account = 1000, window = 60 }").await;
    service.project("open/source", Visibility::Public).await;
    let ann = service.user("ann").await;
    service.store.create_user("test", "keyless", None, false).await.unwrap();
    let token = service.token(&personal(ann, true, true, false, None)).await;
    let ended = service.token(&personal(ann, true, true, false, Some(soon() - 3597))).await;
    until("the token's end", || async {
        service.ask(Some(("ann", &ended)), &[]).await.status == 401
    })
    .await;
    for (name, secret) in [
        ("ann", "wrong"),
        ("ann", ""),
        ("nobody", PASSWORD),
        ("keyless", PASSWORD),
        ("keyless", ""),
        ("bob", token.as_str()),
        ("ci-token", token.as_str()),
        ("ann", ended.as_str()),
        ("ann", "cmp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("ANN", PASSWORD),
    ] {
        let answer = service.ask(Some((name, secret)), &["repository:open/source:pull"]).await;
        assert_eq!(answer.error(), DENIED, "{name}");
    }
    for header in ["Basic", "Basic !", "Bearer x", "Basic Og==", "Digest x", "Basic ZGV2"] {
        let target = "/jwt/auth?service=container_registry&scope=repository:open/source:pull";
        let answer = service
            .send(Method::GET, target, &[("authorization", header.to_owned())], None)
            .await;
        assert_eq!(answer.error(), DENIED, "{header}");
    }
    let entries = service.audit().await;
    let unauthorized: Vec<_> = entries
        .iter()
        .filter(|record| record.entry.outcome == AuditOutcome::Unauthorized)
        .collect();
    // One of them ended the wait.
    assert_eq!(unauthorized.len(), 17);
    // A name that nobody has may be a password in the wrong field.
    assert!(
        unauthorized
            .iter()
            .all(|record| ["", "ann", "keyless"].contains(&record.entry.actor.as_str()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn right_credentials_without_any_right() {
    let service = Running::start().await;
    let project = service.project("g/a", Visibility::Public).await;
    let ann = service.member("ann", project, Role::Owner).await;
    let scopeless = service.token(&personal(ann, false, false, true, None)).await;
    assert_eq!(
        service.ask(Some(("ann", &scopeless)), &["repository:g/a:pull"]).await.error(),
        FORBIDDEN
    );
    let reading = service.token(&personal(ann, true, false, false, None)).await;
    assert_eq!(
        service.granted(Some(("ann", &reading)), &["repository:g/a:pull,push"]).await,
        ["repository:g/a:pull"]
    );
    let job = service
        .token(&NewToken::Job {
            user: ann,
            project,
            expires: soon(),
        })
        .await;
    service.store.set_blocked("test", ann, true).await.unwrap();
    for (name, secret) in [("ann", PASSWORD), ("ann", reading.as_str()), ("ci-token", job.as_str())] {
        assert_eq!(service.ask(Some((name, secret)), &["repository:g/a:pull"]).await.error(), FORBIDDEN);
        assert_eq!(service.ask(Some((name, secret)), &[]).await.error(), FORBIDDEN);
    }
    service.store.set_blocked("test", ann, false).await.unwrap();
    let record = service.store.current().await.unwrap();
    let job_id = record.tokens().map(|token| token.id).max().unwrap();
    service.store.revoke_token("test", job_id).await.unwrap();
    assert_eq!(service.ask(Some(("ci-token", &job)), &[]).await.error(), DENIED);
    service.store.delete_user("test", ann).await.unwrap();
    assert_eq!(service.ask(Some(("ann", PASSWORD)), &[]).await.error(), DENIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_is_refused() {
    let service = Running::with("failed_logins = { per_address = 3, per_account = 100, window = 3600 }\nproxies = [\"127.0.0.1\"]").await;
    let ann = service.user("ann").await;
    let token: &'static str = service.token(&personal(ann, true, true, false, None)).await.leak();
    service.project("open/source", Visibility::Public).await;
    let from = |address: &'static str, secret: &'static str| {
        let headers = [("authorization", basic("ann", secret)), ("x-forwarded-for", address.to_owned())];
        let service = &service;
        async move { service.send(Method::GET, "/jwt/auth?service=other", &headers, None).await }
    };
    for _ in 0..3 {
        assert_eq!(from("192.0.2.1", "wrong").await.error(), DENIED);
    }
    for secret in ["wrong", PASSWORD] {
        assert_eq!(from("192.0.2.1", secret).await.error(), (403, "DENIED", TOO_MANY));
    }
    // A neighbour behind the same address who has a token goes on.
    assert_eq!(from("192.0.2.1", token).await.status, 200);
    assert_eq!(from("192.0.2.1", "cmp_wrong").await.error(), (403, "DENIED", TOO_MANY));
    assert_eq!(from("192.0.2.2", PASSWORD).await.status, 200);
    let anonymous = [("x-forwarded-for", "192.0.2.1".to_owned())];
    let target = "/jwt/auth?service=other&scope=repository:open/source:pull";
    assert_eq!(service.send(Method::GET, target, &anonymous, None).await.status, 200);
    let rest = [("authorization", basic("ann", PASSWORD)), anonymous[0].clone()];
    let answer = service.send(Method::GET, "/api/v4/projects", &rest, None).await;
    assert_eq!((answer.status, answer.json["message"].as_str()), (403, Some(TOO_MANY)));
    assert!(service.audit().await.iter().any(|record| record.entry.address == "192.0.2.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_guessed_keeps_its_tokens() {
    let service = Running::with("failed_logins = { per_address = 100, per_account = 3, window = 3600 }").await;
    let ann = service.user("ann").await;
    service.user("bob").await;
    let token = service.token(&personal(ann, true, true, false, None)).await;
    for _ in 0..3 {
        assert_eq!(service.ask(Some(("ann", "wrong")), &[]).await.error(), DENIED);
    }
    assert_eq!(service.ask(Some(("ann", PASSWORD)), &[]).await.error(), (403, "DENIED", TOO_MANY));
    let answer = service.ask(Some(("ann", &token)), &[]).await;
    assert_eq!((answer.status, &claims(&answer)["sub"]), (200, &"ann".into()));
    assert_eq!(service.ask(Some(("bob", PASSWORD)), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_audit_trail_or_the_metrics() {
    let service = Running::start().await;
    let project = service.project("g/a", Visibility::Private).await;
    let ann = service.member("ann", project, Role::Owner).await;
    let token = service.token(&personal(ann, true, true, true, None)).await;
    service.ask(Some(("ann", PASSWORD)), &["repository:g/a:push"]).await;
    let granted = service.ask(Some(("ann", &token)), &["repository:g/a:push"]).await;
    assert_eq!(access(&granted), ["repository:g/a:push"]);
    let jwt = granted.json["token"].as_str().unwrap();
    service.ask(Some((PASSWORD, "ann")), &["repository:g/a:push"]).await;
    service.ask(Some((&token, "ann")), &["repository:g/a:push"]).await;
    service.ask(Some(("ann", "a wrong secret")), &["repository:g/a:push"]).await;
    let trail = format!("{:?}", service.audit().await);
    let metrics = service.send(Method::GET, "/metrics", &[], None).await.text;
    for secret in [PASSWORD, token.as_str(), jwt, "a wrong secret", "argon2"] {
        assert!(!trail.contains(secret) && !metrics.contains(secret), "{secret}");
    }
    assert!(
        metrics.contains("casemate_registry_decisions_total{outcome=\"granted\"} 2\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("casemate_registry_decisions_total{outcome=\"unauthorized\"} 3\n"),
        "{metrics}"
    );
    assert!(metrics.contains("casemate_registry_login_failures_total 3\n"), "{metrics}");
}
