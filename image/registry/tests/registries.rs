//! Pulls from Debian's registry: each kind of login and of TLS, and what is refused.

use registry_client::{PARALLEL, PullError, RemoteImage, Repository};
use registry_testing::authority::{Authority, self_signed};
use registry_testing::image::Image;
use registry_testing::program::installed;
use registry_testing::registry::{Guard, NAME, PROGRAMS, Registry};
use registry_testing::token::{Accepts, TokenService};
use registry_testing::{assert_says, repository, section};

/// More layers than are pulled at once.
const LAYERS: usize = 2 * PARALLEL + 1;

fn image() -> Image {
    Image::new(LAYERS, 100_000)
}

/// Pulls the image by the digest of its index, and checks every byte.
async fn pull(repository: &Repository, image: &Image) -> Result<RemoteImage, PullError> {
    let remote = repository.image(image.index, None).await?;
    let blobs = repository.each_layer(&remote.layers, |_, mut stream| async move {
        let mut blob = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            blob.extend_from_slice(&chunk);
        }
        Ok::<_, PullError>(blob)
    });
    let blobs = blobs.await?;
    assert_eq!(remote.digest, image.manifest);
    assert_eq!(remote.config.cmd, Some(vec!["/bin/true".to_owned()]));
    assert_eq!(blobs.len(), LAYERS);
    for (blob, digest) in blobs.iter().zip(&image.layers) {
        assert!(*blob == image.blobs[digest], "{digest}");
    }
    Ok(remote)
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_only_where_the_section_allows_it() {
    if !installed("plain_http_only_where_the_section_allows_it", &PROGRAMS) {
        return;
    }
    let image = image();
    let registry = Registry::with(&image);
    let host = format!("127.0.0.1:{}", registry.port);
    let open = repository("[registries.\".\"]\ninsecure-skip-verify = true", &host, NAME);
    let remote = pull(&open, &image).await.unwrap();
    let bytes: usize = image.layers.iter().map(|digest| image.blobs[digest].len()).sum();
    assert_eq!(remote.compressed_bytes(), Some(bytes as u64));
    let (digest, _) = open.resolve("test").await.unwrap();
    assert_eq!(digest, image.index);

    let error = pull(&repository("", &host, NAME), &image).await.unwrap_err();
    assert_says(&error, &["cannot reach the registry of", &host], &[]);

    let missing = repository("[registries.\".\"]\ninsecure-skip-verify = true", &host, "team/none");
    let error = missing.image(image.index, None).await.unwrap_err();
    assert_says(
        &error,
        &["cannot get manifest sha256:", "team/none", "404", "manifest unknown"],
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_logins_of_each_form() {
    if !installed("basic_logins_of_each_form", &[PROGRAMS[0], PROGRAMS[1], "htpasswd"]) {
        return;
    }
    let image = image();
    let authority = Authority::new();
    let identity = authority.issue(&["127.0.0.1"]);
    let guard = Guard {
        tls: Some(&identity),
        basic: Some(("robot", "hunter2:x")),
        ..Guard::default()
    };
    let registry = Registry::with(&image).guarded(&guard);
    let host = format!("127.0.0.1:{}", registry.port);
    let secrets = ["hunter2", "cm9ib3Q6aHVudGVyMjp4", "wrong-password"];
    let at = |login: &str| repository(&section(&host, &authority.certificate, login), &host, NAME);
    for login in [
        "username = 'robot'\npassword = 'hunter2:x'",
        "auth = ' cm9ib3Q6aHVudGVyMjp4\n'".replace('\n', "").as_str(),
    ] {
        pull(&at(login), &image).await.unwrap();
    }
    for (login, used) in [
        ("username = 'robot'\npassword = 'wrong-password'", "basic credentials"),
        ("", "no credentials"),
        ("identitytoken = 'wrong-password'", "no credentials"),
        ("registrytoken = 'wrong-password'", "registry-token credentials"),
    ] {
        let error = pull(&at(login), &image).await.unwrap_err();
        let section = format!("{used}, section \"{host}\"");
        assert_says(&error, &["cannot get manifest", NAME, "401", &section], &secrets);
    }
    for secret in secrets {
        assert!(!registry.log().contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pinned_certificates_are_trusted() {
    if !installed("only_the_pinned_certificates_are_trusted", &PROGRAMS) {
        return;
    }
    let image = image();
    let authority = Authority::new();
    let identity = authority.issue(&["127.0.0.1"]);
    let registry = Registry::with(&image).guarded(&Guard {
        tls: Some(&identity),
        ..Guard::default()
    });
    let host = format!("127.0.0.1:{}", registry.port);
    let two = format!("some text\n{}{}", Authority::new().certificate, authority.certificate);
    pull(&repository(&section(&host, &two, ""), &host, NAME), &image).await.unwrap();
    pull(&repository(&section(&host, "", "insecure-skip-verify = true"), &host, NAME), &image)
        .await
        .unwrap();

    for (config, reason) in [
        (String::new(), "UnknownIssuer"),
        (section(&host, &Authority::new().certificate, ""), "certificate"),
        (
            section(&host, "no certificate\n", ""),
            "ca-certs of this registry's section holds no certificate",
        ),
        (
            section(".", "no certificate\n", ""),
            "ca-certs of this registry's section holds no certificate",
        ),
    ] {
        let error = pull(&repository(&config, &host, NAME), &image).await.unwrap_err();
        assert_says(&error, &["cannot reach the registry of", NAME, reason], &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_certificate_may_be_the_servers_own() {
    if !installed("a_pinned_certificate_may_be_the_servers_own", &PROGRAMS) {
        return;
    }
    let image = image();
    let identity = self_signed(&["127.0.0.1"]);
    let registry = Registry::with(&image).guarded(&Guard {
        tls: Some(&identity),
        ..Guard::default()
    });
    let host = format!("127.0.0.1:{}", registry.port);
    pull(&repository(&section(&host, &identity.certificate, ""), &host, NAME), &image)
        .await
        .unwrap();

    let named = self_signed(&["other.test"]);
    let registry = registry.guarded(&Guard {
        tls: Some(&named),
        ..Guard::default()
    });
    let host = format!("127.0.0.1:{}", registry.port);
    let error = pull(&repository(&section(&host, &named.certificate, ""), &host, NAME), &image)
        .await
        .unwrap_err();
    assert_says(&error, &["cannot reach the registry of", "not valid for name", "other.test"], &[]);
}

/// A registry with token authentication, its service, and the certificate authority of both.
fn guarded_by_tokens(image: &Image, accepts: Accepts) -> (Registry, TokenService, Authority) {
    let authority = Authority::new();
    let service = TokenService::start(&authority, accepts);
    let identity = authority.issue(&["127.0.0.1"]);
    let registry = Registry::with(image).guarded(&Guard {
        tls: Some(&identity),
        token: Some((&service.realm(), &service.certificate)),
        ..Guard::default()
    });
    (registry, service, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_for_nobody_for_users_and_for_identity_tokens() {
    if !installed("tokens_for_nobody_for_users_and_for_identity_tokens", &PROGRAMS) {
        return;
    }
    let image = image();
    let secrets = ["hunter2", "dXNlcjpodW50ZXIy", "refresh-1"];
    let user = "username = 'user'\npassword = 'hunter2'";
    let basic = Accepts {
        basic: Some("Basic dXNlcjpodW50ZXIy"),
        refresh: None,
    };
    let refreshes = Accepts {
        basic: None,
        refresh: Some("refresh-1"),
    };
    let nobody = Accepts {
        basic: None,
        refresh: None,
    };
    for (accepts, login, requests) in [
        (nobody, String::new(), ["GET"].as_slice()),
        (basic, user.to_owned(), &["GET"]),
        (basic, "auth = 'dXNlcjpodW50ZXIy'".to_owned(), &["GET"]),
        (refreshes, format!("identitytoken = 'refresh-1'\n{user}"), &["POST"]),
        // A service without refresh tokens gets the other credentials.
        (basic, format!("identitytoken = 'refresh-1'\n{user}"), &["POST", "GET"]),
    ] {
        let (registry, service, authority) = guarded_by_tokens(&image, accepts);
        let host = format!("127.0.0.1:{}", registry.port);
        pull(&repository(&section(&host, &authority.certificate, &login), &host, NAME), &image)
            .await
            .unwrap();
        let asked = service.server.requests();
        let methods: Vec<&str> = asked.iter().map(|request| request.method.as_str()).collect();
        assert_eq!(methods, requests, "one token for all layers: {asked:?}");
        let last = asked.last().unwrap();
        let text = format!("{}{}", last.target, last.body);
        assert!(
            text.contains("scope=repository%3Ateam%2Fapp%3Apull") && text.contains("service=test-registry"),
            "{text}"
        );
    }

    let (registry, _, authority) = guarded_by_tokens(&image, refreshes);
    let host = format!("127.0.0.1:{}", registry.port);
    for (login, words) in [
        (user, ["Access denied", "basic credentials"]),
        (
            "identitytoken = 'wrong-token'",
            ["refresh_token=[secret]", "identity-token credentials"],
        ),
        ("", ["401", "no credentials"]),
    ] {
        let at = repository(&section(&host, &authority.certificate, login), &host, NAME);
        // The service takes everybody who sends nothing.
        match pull(&at, &image).await {
            Err(error) => assert_says(
                &error,
                &["cannot get a token for", NAME, words[0], words[1]],
                &[&secrets[..], &["wrong-token"]].concat(),
            ),
            Ok(_) => assert!(login.is_empty(), "{login}"),
        }
    }
    let at = repository(
        &section(&host, &authority.certificate, "registrytoken = 'wrong-token'"),
        &host,
        NAME,
    );
    let error = pull(&at, &image).await.unwrap_err();
    assert_says(
        &error,
        &["cannot get manifest", "401", "registry-token credentials"],
        &["wrong-token"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_layer_and_a_changed_manifest_are_refused() {
    if !installed("a_changed_layer_and_a_changed_manifest_are_refused", &PROGRAMS) {
        return;
    }
    let image = image();
    let registry = Registry::with(&image);
    let host = format!("127.0.0.1:{}", registry.port);
    let open = || repository("[registries.\".\"]\ninsecure-skip-verify = true", &host, NAME);
    let layer = image.layers[3];
    let file = registry.blob_file(&layer.hex());
    let good = std::fs::read(&file).unwrap();

    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &changed).unwrap();
    let error = pull(&open(), &image).await.unwrap_err();
    assert_says(&error, &[&format!("cannot get layer {layer}"), "the content has the digest"], &[]);

    std::fs::write(&file, &good[..good.len() - 1]).unwrap();
    let error = pull(&open(), &image).await.unwrap_err();
    assert_says(&error, &[&format!("cannot get layer {layer}"), "and the image says"], &[]);

    std::fs::write(&file, &good).unwrap();
    pull(&open(), &image).await.unwrap();
    let manifest = registry.blob_file(&image.index.hex());
    let text = String::from_utf8(std::fs::read(&manifest).unwrap()).unwrap();
    std::fs::write(&manifest, text.replace("arm64", "mra64")).unwrap();
    let error = pull(&open(), &image).await.unwrap_err();
    assert_says(&error, &[&format!("cannot get manifest {}", image.index)], &[]);
}
