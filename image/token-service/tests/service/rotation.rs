//! New keys and certificates while the service runs.

use crate::running::{PATIENCE, Running, part, until, verifies};
use registry_rules::Visibility;
use registry_testing::authority::{Authority, Identity};
use reqwest::{Certificate, Client};
use token_service::{KeyAlgorithm, new_key};

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_without_a_pause() {
    let service = Running::start().await;
    service.project("open/source", Visibility::Public).await;
    let token = || async {
        let answer = service.ask(None, &["repository:open/source:pull"]).await;
        assert_eq!(answer.status, 200);
        answer.json["token"].as_str().unwrap().to_owned()
    };
    let (key, certificate) = (service.file("token.key"), service.file("token.crt"));
    let old_certificate = service.file("old.crt");
    std::fs::copy(&certificate, &old_certificate).unwrap();
    let old = token().await;
    assert!(verifies(&old, &certificate));
    // Half a rotation is none: the certificate does not fit, so the old key goes on.
    new_key(KeyAlgorithm::Rs256, &service.file("new.key"), &service.file("new.crt")).unwrap();
    std::fs::rename(service.file("new.key"), &key).unwrap();
    let failed = || async {
        let metrics = service.send(reqwest::Method::GET, "/metrics", &[], None).await.text;
        !metrics.contains("casemate_registry_reload_failures_total 0\n")
    };
    until("the refusal of half a rotation", failed).await;
    assert!(verifies(&token().await, &old_certificate));
    std::fs::rename(service.file("new.crt"), &certificate).unwrap();
    until("the rotation", || async { part(&token().await, 0)["alg"] == "RS256" }).await;
    let new = token().await;
    assert!(verifies(&new, &certificate) && !verifies(&new, &old_certificate));
    // The registry's bundle has both certificates: tokens of either key are good.
    assert!(verifies(&old, &old_certificate));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_listener_changes() {
    let (first, second) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let write = |identity: &Identity, directory: &std::path::Path| {
        std::fs::write(directory.join("tls.key"), &identity.key).unwrap();
        std::fs::write(directory.join("tls.crt"), &identity.certificate).unwrap();
    };
    write(&first.issue(&["localhost"]), directory.path());
    new_key(
        KeyAlgorithm::Es256,
        &directory.path().join("token.key"),
        &directory.path().join("token.crt"),
    )
    .unwrap();
    let tls = format!(
        "tls = {{ key = \"{0}/tls.key\", certificate = \"{0}/tls.crt\" }}",
        directory.path().display()
    );
    let service = Running::of(directory, &tls).await;
    let health = format!("https://localhost:{}/healthz", service.address.port());
    let reaches = |authority: &Authority| {
        let root = Certificate::from_pem(authority.certificate.as_bytes()).unwrap();
        // Each try makes a connection of its own.
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .timeout(PATIENCE)
            .pool_max_idle_per_host(0);
        let client = client.resolve("localhost", service.address).build().unwrap();
        let health = health.clone();
        async move { client.get(health).send().await.is_ok_and(|answer| answer.status() == 200) }
    };
    assert!(reaches(&first).await && !reaches(&second).await);
    write(&second.issue(&["localhost"]), service.directory.path());
    until("the new certificate", || reaches(&second)).await;
    assert!(!reaches(&first).await);
}
