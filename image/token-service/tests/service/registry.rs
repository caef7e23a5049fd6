//! Debian's registry believes the tokens: `x5c` of both algorithms, and what they grant.

use crate::running::{PASSWORD, Running};
use registry_rules::{Role, Visibility};
use registry_testing::image::Image;
use registry_testing::program::installed;
use registry_testing::registry::{Guard, NAME, PROGRAMS, Registry};
use std::process::Command;
use token_service::{KeyAlgorithm, new_key};

async fn skopeo(arguments: Vec<String>) -> (bool, String) {
    let run = move || Command::new("skopeo").args(&arguments).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_accepts_tokens_of_both_algorithms() {
    if !installed("token service", &PROGRAMS) {
        return;
    }
    for algorithm in [KeyAlgorithm::Es256, KeyAlgorithm::Rs256] {
        let directory = tempfile::tempdir().unwrap();
        let certificate = directory.path().join("token.crt");
        new_key(algorithm, &directory.path().join("token.key"), &certificate).unwrap();
        let certificate = std::fs::read_to_string(certificate).unwrap();
        let extra = "";
        let service = Running::of(directory, extra).await;
        let project = service.project("team", Visibility::Private).await;
        service.member("dev", project, Role::Developer).await;
        service.member("rep", project, Role::Reporter).await;
        let realm = format!("http://{}/jwt/auth", service.address);
        let registry = tokio::task::spawn_blocking(move || {
            let guard = Guard {
                token: Some((&realm, &certificate)),
                ..Guard::default()
            };
            Registry::with(&Image::new(1, 1000)).guarded(&guard)
        });
        let registry = registry.await.unwrap();
        let source = format!("docker://127.0.0.1:{}/{NAME}:test", registry.port);
        let inspect = |user: &str, password: &str| {
            let creds = format!("{user}:{password}");
            vec![
                "inspect".into(),
                "--raw".into(),
                "--tls-verify=false".into(),
                "--creds".into(),
                creds,
                source.clone(),
            ]
        };
        let (done, error) = skopeo(inspect("rep", PASSWORD)).await;
        assert!(done, "{error} {}", registry.log());
        let (done, error) = skopeo(inspect("rep", "wrong")).await;
        assert!(!done && error.contains("HTTP Basic: Access denied"), "{error}");
        let copy = |user: &str| {
            let creds = format!("{user}:{PASSWORD}");
            let target = format!("docker://127.0.0.1:{}/{NAME}:copy", registry.port);
            let options = [
                "--insecure-policy",
                "copy",
                "--all",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                "--src-creds",
            ];
            let mut arguments: Vec<String> = options.map(str::to_owned).into();
            arguments.extend([creds.clone(), "--dest-creds".to_owned(), creds, source.clone(), target]);
            arguments
        };
        let (done, error) = skopeo(copy("dev")).await;
        assert!(done, "{error}");
        let (done, _) = skopeo(copy("rep")).await;
        assert!(!done);
        service.rule(project, "team/*", Some("maintainer"), None).await;
        let (done, error) = skopeo(copy("dev")).await;
        assert!(!done && error.contains("403"), "{error}");
    }
}
