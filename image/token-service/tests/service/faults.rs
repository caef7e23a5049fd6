//! Faults of clients and of the database: limits, broken requests, 503, and an end that cuts nobody off.

use crate::running::{PASSWORD, PATIENCE, Running, SERVICE, basic, until};
use registry_rules::{Role, Visibility};
use registry_store::Holder;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn raw(service: &Running, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_their_limits_are_refused_in_json() {
    let service = Running::start().await;
    let long = format!("/jwt/auth?service={SERVICE}&scope={}", "a".repeat(17 << 10));
    assert_eq!(service.send(Method::GET, &long, &[], None).await.status, 414);
    let headers = [("x-long", "a".repeat(17 << 10))];
    assert_eq!(service.send(Method::GET, "/jwt/auth", &headers, None).await.status, 431);
    let form = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let body = format!("grant_type=password&x={}", "a".repeat(65 << 10));
    assert_eq!(service.send(Method::POST, "/jwt/auth", &form, Some(body)).await.status, 413);
    let many = format!("/jwt/auth?service={SERVICE}{}", "&scope=repository:a:pull".repeat(400));
    assert_eq!(service.send(Method::GET, &many, &[], None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_answered_or_closed() {
    let service = Running::start().await;
    for request in [
        "GET\r\n\r\n",
        "GET / HTTP/9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{0}junk\r\n\r\n",
        "GET /\u{0} HTTP/1.1\r\n\r\n",
    ] {
        let answer = raw(&service, request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{request:?} {answer:?}");
    }
    let cut = "POST /jwt/auth HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
               content-type: application/x-www-form-urlencoded\r\n\r\nzz\r\n";
    assert!(raw(&service, cut.as_bytes()).await.starts_with("HTTP/1.1 400 "));
    let escaped = "GET /api/v4/projects/%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw(&service, escaped.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with('}'), "{answer}");
    assert_eq!(service.send(Method::GET, "/healthz", &[], None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_nothing_is_granted() {
    let service = Running::start().await;
    service.project("open/source", Visibility::Public).await;
    let project = service.project("g/a", Visibility::Private).await;
    service.member("ann", project, Role::Owner).await;
    let scope = ["repository:open/source:pull"];
    assert_eq!(service.granted(None, &scope).await.len(), 1);
    let (kept, gone) = (service.file("registry.db"), service.file("registry.gone"));
    std::fs::rename(&kept, &gone).unwrap();
    for login in [None, Some(("ann", PASSWORD)), Some(("ann", "wrong"))] {
        let answer = service.ask(login, &scope).await;
        assert_eq!((answer.status, answer.error().1), (503, "UNAVAILABLE"), "{}", answer.text);
        assert!(answer.error().2.starts_with("the database is unavailable: "), "{}", answer.text);
        assert!(!answer.text.contains(service.directory.path().to_str().unwrap()), "{}", answer.text);
    }
    let rest = [("authorization", basic("ann", PASSWORD))];
    let answer = service.send(Method::GET, "/api/v4/projects", &rest, None).await;
    assert!(answer.status == 503 && answer.json["message"].is_string(), "{}", answer.text);
    assert_eq!(service.send(Method::GET, "/healthz", &[], None).await.status, 503);
    let metrics = service.send(Method::GET, "/metrics", &[], None).await.text;
    assert!(metrics.contains("casemate_registry_unavailable_total 4\n"), "{metrics}");
    std::fs::rename(&gone, &kept).unwrap();
    let back = || async { service.ask(None, &scope).await.status == 200 };
    until("the service's return", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_finishes_what_was_begun() {
    let service = Running::start().await;
    service.user("ann").await;
    let address = service.address;
    let body = format!(
        "grant_type=password&service={SERVICE}&username=ann&password={}",
        PASSWORD.replace(' ', "+")
    );
    let (first, second) = body.split_at(20);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /jwt/auth HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The handler asks for the body: the request is under way.
    let mut going = [0; 25];
    stream.read_exact(&mut going).await.unwrap();
    assert_eq!(&going, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut healthy = Vec::new();
    while !healthy.ends_with(b"}") {
        healthy.push(idle.read_u8().await.unwrap());
    }
    let (ended, _directory) = service.stop();
    // The idle one is closed, and nobody new comes in.
    let mut nothing = Vec::new();
    tokio::time::timeout(PATIENCE, idle.read_to_end(&mut nothing))
        .await
        .unwrap()
        .unwrap();
    assert!(nothing.is_empty());
    until("the listener's end", || async { TcpStream::connect(address).await.is_err() }).await;
    assert!(!ended.is_finished());
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"token\""), "{answer}");
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_a_role_while_a_body_is_on_its_way_does_not_use_it() {
    let service = Running::start().await;
    let project = service.project("g/a", Visibility::Private).await;
    let ann = service.member("ann", project, Role::Maintainer).await;
    let body = r#"{"repository_path_pattern":"g/a/x","minimum_access_level_for_push":"owner"}"#;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let head = format!(
        "POST /api/v4/projects/{project}/registry/protection/repository/rules HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         expect: 100-continue\r\nauthorization: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        basic("ann", PASSWORD),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut going = [0; 25];
    stream.read_exact(&mut going).await.unwrap();
    assert_eq!(&going, b"HTTP/1.1 100 Continue\r\n\r\n");
    service.store.set_member("test", Holder::Project(project), ann, None).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        service
            .store
            .current()
            .await
            .unwrap()
            .projects
            .by_id(project)
            .unwrap()
            .rules()
            .is_empty()
    );
}
