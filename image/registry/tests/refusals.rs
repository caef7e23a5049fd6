//! What hostile registries send, each refused with a line that names the step.

use oci::Digest;
use registry_client::{PullError, Repository};
use registry_testing::authority::Authority;
use registry_testing::image::{CONFIG, INDEX, Image, LAYER, MANIFEST, descriptor};
use registry_testing::server::{Answer, Body, Request, Server};
use registry_testing::{assert_says, repository, section};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Plain HTTP on the loopback, and a password that nobody but the registry may see.
const OPEN: &str = "[registries.'.']\ninsecure-skip-verify = true\nusername = 'user'\npassword = 'hunter2'";
const SECRETS: [&str; 2] = ["hunter2", "dXNlcjpodW50ZXIy"];

/// Starts a server of these blobs; `special` answers first.
fn serve(blobs: BTreeMap<Digest, Vec<u8>>, special: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Server {
    Server::start(None, move |request| special(request).unwrap_or_else(|| stored(&blobs, request)))
}

fn stored(blobs: &BTreeMap<Digest, Vec<u8>>, request: &Request) -> Answer {
    let name = request.target.rsplit('/').next().unwrap_or_default();
    match (
        request.target.as_str(),
        name.parse().ok().and_then(|digest: Digest| blobs.get(&digest)),
    ) {
        ("/v2/", _) => Answer::new(200, "{}"),
        (_, Some(blob)) => Answer::new(200, blob.clone()),
        (_, None) => Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
    }
}

fn at(server: &Server) -> Repository {
    repository(OPEN, &server.host(), "a/b")
}

/// Pulls everything of an image.
async fn pull(repository: &Repository, digest: Digest) -> Result<(), PullError> {
    let image = repository.image(digest, None).await?;
    let pulled = repository.each_layer(&image.layers, |_, mut stream| async move {
        while stream.chunk().await?.is_some() {}
        Ok::<_, PullError>(())
    });
    pulled.await.map(|_| ())
}

/// A blob of the server and its digest.
fn keep(blobs: &mut BTreeMap<Digest, Vec<u8>>, document: Value) -> Digest {
    let bytes = document.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    blobs.insert(digest, bytes);
    digest
}

#[tokio::test]
async fn a_wrong_manifest_a_changed_layer_and_a_changed_config() {
    let image = Image::new(2, 1000);
    pull(&at(&serve(image.blobs.clone(), |_| None)), image.index).await.unwrap();

    let mut blobs = image.blobs.clone();
    blobs.insert(image.index, blobs[&image.manifest].clone());
    let error = pull(&at(&serve(blobs, |_| None)), image.index).await.unwrap_err();
    assert_says(
        &error,
        &[&format!("cannot get manifest {}", image.index), "the content has the digest"],
        &SECRETS,
    );

    let mut blobs = image.blobs.clone();
    blobs.get_mut(&image.layers[1]).unwrap()[10] ^= 1;
    let error = pull(&at(&serve(blobs, |_| None)), image.index).await.unwrap_err();
    assert_says(
        &error,
        &[&format!("cannot get layer {}", image.layers[1]), "the content has the digest"],
        &SECRETS,
    );

    let manifest: Value = serde_json::from_slice(&image.blobs[&image.manifest]).unwrap();
    let config: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let mut blobs = image.blobs.clone();
    let text = String::from_utf8(blobs[&config].clone()).unwrap().replace("true", "evil");
    blobs.insert(config, text.into_bytes());
    let error = pull(&at(&serve(blobs, |_| None)), image.index).await.unwrap_err();
    assert_says(
        &error,
        &[&format!("cannot get config {config}"), "the content has the digest"],
        &SECRETS,
    );
}

#[tokio::test]
async fn a_truncated_and_an_endless_layer() {
    let image = Image::new(1, 100_000);
    let layer = image.layers[0];
    let blob = image.blobs[&layer].clone();
    let size = blob.len() as u64;
    let half = blob[..50_000].to_vec();
    let of_layer = move |request: &Request| request.target.ends_with(&layer.hex()) && !request.target.contains("manifests");
    let named = format!("cannot get layer {layer}");

    for (name, body, reason) in [
        ("wrong length", 0, "bytes, and the image says"),
        ("connections that break", 1, "no answer"),
        ("a body that ends early", 2, "it ends after 50000 of"),
        ("too many bytes", 3, "does not end after"),
        ("no end", 4, "does not end after"),
    ] {
        let (half, blob) = (half.clone(), blob.clone());
        let server = serve(image.blobs.clone(), move |request| {
            let body = match body {
                0 => Body::Whole(half.clone()),
                1 => Body::Cut(half.clone(), size),
                2 => Body::Chunked(half.clone()),
                3 => Body::Chunked([&blob[..], b"more"].concat()),
                _ => Body::Endless,
            };
            of_layer(request).then(|| Answer::of(200, body))
        });
        let error = pull(&at(&server), image.index).await.unwrap_err();
        println!("{name}");
        assert_says(&error, &[&named, reason], &SECRETS);
        let asked = server.requests().iter().filter(|request| of_layer(request)).count();
        assert!(asked <= 13, "{name}: {asked} requests");
    }
}

#[tokio::test]
async fn a_manifest_without_an_end_and_one_that_is_too_long() {
    let digest = Digest::of(b"index");
    for body in [0, 1] {
        let server = serve(BTreeMap::new(), move |request| {
            let body = if body == 0 { Body::Endless } else { Body::Letters(1 << 30) };
            request.target.contains("manifests").then(|| Answer::of(200, body))
        });
        let error = pull(&at(&server), digest).await.unwrap_err();
        assert_says(
            &error,
            &[&format!("cannot get manifest {digest}"), "longer than 4194304 bytes"],
            &SECRETS,
        );
    }
}

#[tokio::test]
async fn an_index_of_indexes_without_an_end() {
    // Each names the next, whose digest is known only to whoever made it first: a chain, longer than any client follows.
    let mut blobs = BTreeMap::new();
    let mut digest = keep(&mut blobs, json!({ "schemaVersion": 2, "manifests": [] }));
    for _ in 0..100 {
        let entry = descriptor(INDEX, &blobs[&digest]);
        digest = keep(&mut blobs, json!({ "schemaVersion": 2, "manifests": [entry] }));
    }
    let server = serve(blobs, |_| None);
    let error = pull(&at(&server), digest).await.unwrap_err();
    assert_says(&error, &["cannot choose an image of", "indexes away"], &SECRETS);
    assert!(server.requests().len() < 20);

    // And one that is wide.
    let mut blobs = BTreeMap::new();
    let entries: Vec<Value> = (0..1000)
        .map(|number| {
            let leaf = keep(
                &mut blobs,
                json!({ "schemaVersion": 2, "manifests": [], "annotations": { "n": number.to_string() } }),
            );
            descriptor(INDEX, &blobs[&leaf])
        })
        .collect();
    let digest = keep(&mut blobs, json!({ "schemaVersion": 2, "manifests": entries }));
    let error = pull(&at(&serve(blobs, |_| None)), digest).await.unwrap_err();
    assert_says(&error, &["cannot choose an image of", "documents"], &SECRETS);

    // And one with few documents, each almost as long as one may be.
    let mut blobs = BTreeMap::new();
    let entries: Vec<Value> = (0..20)
        .map(|number| {
            let long = json!({ "n": number.to_string(), "x": "x".repeat((4 << 20) - 1000) });
            let leaf = keep(&mut blobs, json!({ "schemaVersion": 2, "manifests": [], "annotations": long }));
            descriptor(INDEX, &blobs[&leaf])
        })
        .collect();
    let digest = keep(&mut blobs, json!({ "schemaVersion": 2, "manifests": entries }));
    let server = serve(blobs, |_| None);
    let error = pull(&at(&server), digest).await.unwrap_err();
    assert_says(
        &error,
        &["cannot choose an image of", "more than 16777216 bytes together"],
        &SECRETS,
    );
    assert!(server.requests().len() <= 7, "{}", server.requests().len());
}

/// An image whose manifest has these layers.
fn with_layers(layers: Vec<Value>) -> (BTreeMap<Digest, Vec<u8>>, Digest) {
    let mut blobs = BTreeMap::new();
    let diff_ids = vec![Digest::of(b"x").to_string(); layers.len()];
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = keep(&mut blobs, config);
    let config = descriptor(CONFIG, &blobs[&config]);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let digest = keep(&mut blobs, manifest);
    (blobs, digest)
}

#[tokio::test]
async fn ten_thousand_layers_and_layers_of_other_kinds() {
    let layer = descriptor(LAYER, b"x");
    let (blobs, digest) = with_layers(vec![layer.clone(); 10_000]);
    let error = pull(&at(&serve(blobs, |_| None)), digest).await.unwrap_err();
    assert_says(&error, &["cannot choose an image of", "10000 layers, more than 500"], &SECRETS);

    for kind in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
    ] {
        let (blobs, digest) = with_layers(vec![descriptor(kind, b"x")]);
        let server = serve(blobs, |_| None);
        let error = pull(&at(&server), digest).await.unwrap_err();
        assert_says(&error, &["cannot choose an image of", "its layer sha256:", kind], &SECRETS);
    }
    let unknown = "application/vnd.oci.image.layer.v1.tar+lz4";
    let (blobs, digest) = with_layers(vec![descriptor(unknown, b"x")]);
    let error = pull(&at(&serve(blobs, |_| None)), digest).await.unwrap_err();
    assert_says(&error, &["cannot get layer", unknown], &SECRETS);
    let mut sizeless = layer;
    sizeless.as_object_mut().unwrap().remove("size");
    let (blobs, digest) = with_layers(vec![sizeless]);
    let error = pull(&at(&serve(blobs, |_| None)), digest).await.unwrap_err();
    assert_says(&error, &["cannot get layer", "does not say its size"], &SECRETS);
}

#[tokio::test]
async fn redirects_carry_no_credentials() {
    let image = Image::new(1, 1000);
    let storage = serve(image.blobs.clone(), |request| {
        request
            .target
            .contains("asks")
            .then(|| Answer::new(401, "{}").header("WWW-Authenticate", "Basic realm=x"))
    });
    let to = Arc::new(Mutex::new(format!("http://{}/blobs?key=signed-key", storage.host())));
    let target = to.clone();
    let layer = image.layers[0];
    let server = serve(image.blobs.clone(), move |request| {
        let redirected = request.target.ends_with(&format!("blobs/{layer}"));
        let target = target.lock().unwrap().replace("/blobs", &format!("/blobs/{layer}"));
        redirected.then(|| Answer::new(307, "").header("Location", target))
    });
    *to.lock().unwrap() = format!("http://{}/blobs", storage.host());
    pull(&at(&server), image.index).await.unwrap();
    let got = storage.requests();
    assert!(got.iter().all(|request| !request.headers.contains_key("authorization")), "{got:?}");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.target == "/v2/" || request.headers.contains_key("authorization"))
    );

    let named = format!("cannot get layer {layer}");
    for (target, reason) in [
        (
            format!("http://{}/asks/blobs", storage.host()),
            "asks for credentials; it gets none",
        ),
        (format!("http://user:signed-key@{}/blobs", storage.host()), "it has a user in it"),
        ("ftp://127.0.0.1/blobs".to_owned(), "it must be https"),
        (format!("http://{}/v2/a/b/blobs", server.host()), "more than 10 redirects"),
        (format!("http://{}/none?key=signed-key", storage.host()), "the server answers 404"),
    ] {
        *to.lock().unwrap() = target;
        let error = pull(&at(&server), image.index).await.unwrap_err();
        assert_says(&error, &[&named, reason], &["hunter2", "dXNlcjpodW50ZXIy", "signed-key"]);
    }
}

#[tokio::test]
async fn a_token_of_a_gigabyte_and_token_services_inside() {
    let image = Image::new(1, 1000);
    // The service is at the registry's own address, which is allowed.
    let realm = Arc::new(Mutex::new(String::new()));
    let own = realm.clone();
    let server = serve(image.blobs.clone(), move |request| match request.target.split('?').next() {
        Some("/huge") => Some(Answer::of(200, Body::Letters(1 << 30))),
        Some("/endless") => Some(Answer::of(200, Body::Endless)),
        Some("/empty") => Some(Answer::new(200, "{}")),
        Some("/echo") => Some(Answer::new(
            403,
            json!({ "message": format!("not {:?} hunter2", request.headers) }).to_string(),
        )),
        Some("/away") => Some(Answer::new(302, "").header("Location", "http://10.0.0.1/token")),
        _ => {
            let challenge = format!("Bearer realm=\"{}\",service=\"s\"", own.lock().unwrap());
            Some(Answer::new(401, "{}").header("WWW-Authenticate", challenge))
        }
    });
    let host = server.host();
    for (at_realm, reason) in [
        (format!("http://{host}/huge"), "longer than 65536 bytes"),
        (format!("http://{host}/endless"), "longer than 65536 bytes"),
        (format!("http://{host}/empty"), "has no token"),
        (format!("http://{host}/echo"), "the server answers 403: not"),
        (
            format!("http://{host}/away"),
            "10.0.0.1 is an address of this machine or its network",
        ),
        ("http://127.0.0.1:1/token".to_owned(), "127.0.0.1 is an address of this machine"),
        ("http://[::1]/token".to_owned(), "is an address of this machine"),
        ("http://user:pass@auth.test/token".to_owned(), "has a user in it"),
        ("nonsense".to_owned(), "not a URL"),
    ] {
        *realm.lock().unwrap() = at_realm;
        let error = pull(&at(&server), image.index).await.unwrap_err();
        assert_says(&error, &["cannot get a token for", "a/b", reason], &SECRETS);
    }
    // Nothing without TLS gets the password unless the section says so.
    let authority = Authority::new();
    let identity = authority.issue(&["127.0.0.1"]);
    let tls = Server::start(Some(&identity), |_| {
        Answer::new(401, "{}").header("WWW-Authenticate", "Bearer realm=\"http://auth.test/\"")
    });
    let config = section(".", &authority.certificate, "username = 'user'\npassword = 'hunter2'");
    let error = pull(&repository(&config, &tls.host(), "a/b"), image.index).await.unwrap_err();
    assert_says(&error, &["cannot get a token for", "must be reached by https"], &SECRETS);
}

#[tokio::test]
async fn a_server_that_repeats_a_long_secret_shows_no_part_of_it() {
    // No eight characters of it occur twice; a form and a JSON text have it in other forms.
    let secret: String = (100..225).map(|number| format!("{number}/")).collect();
    assert_eq!(secret.len(), 500);
    let realm = Arc::new(Mutex::new(String::new()));
    let own = realm.clone();
    let server = Server::start(None, move |request| {
        let said = format!("got {:?} {}", request.headers.get("authorization"), request.body);
        match request.target.as_str() {
            "/v2/" => Answer::new(401, "{}").header("WWW-Authenticate", format!("Bearer realm=\"{}\"", own.lock().unwrap())),
            _ => Answer::new(403, json!({ "errors": [{ "message": said }] }).to_string()),
        }
    });
    *realm.lock().unwrap() = format!("http://{}/token", server.host());
    for kind in ["registrytoken", "identitytoken"] {
        let config = format!("[registries.'.']\ninsecure-skip-verify = true\n{kind} = '{secret}'");
        let error = pull(&repository(&config, &server.host(), "a/b"), Digest::of(b"index"))
            .await
            .unwrap_err();
        assert_says(&error, &["[secret]"], &["100/", "100%2F", "110/", "110%2F"]);
    }
}

#[tokio::test]
async fn challenges_without_an_answer() {
    let digest = Digest::of(b"index");
    for (challenge, step, reason) in [
        ("Negotiate", "cannot reach the registry of", "of the kind Negotiate"),
        ("Bearer service=\"s\"", "cannot reach the registry of", "does not say from where"),
        (
            "Basic realm=\"x\"",
            "cannot get manifest",
            "the server answers 401: no hunter; used: basic credentials",
        ),
    ] {
        let server = serve(BTreeMap::new(), move |_| {
            let refusal = r#"{"errors":[{"message":"no hunter"}]}"#;
            Some(Answer::new(401, refusal).header("WWW-Authenticate", challenge))
        });
        let error = pull(&at(&server), digest).await.unwrap_err();
        assert_says(&error, &[step, reason], &SECRETS);
        // A refused password is not sent again, and nothing is tried without it.
        assert!(server.requests().len() <= 2, "{:?}", server.requests());
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_and_a_redirect_outside_of_the_pinned_authority() {
    let image = Image::new(1, 1000);
    let authority = Authority::new();
    let blobs = image.blobs.clone();
    let named = Server::start(Some(&authority.issue(&["other.test"])), move |request| stored(&blobs, request));
    let config = section(".", &authority.certificate, "");
    let error = pull(&repository(&config, &named.host(), "a/b"), image.index).await.unwrap_err();
    assert_says(&error, &["cannot reach the registry of", "not valid for name", "other.test"], &[]);

    let blobs = image.blobs.clone();
    let foreign = Server::start(Some(&Authority::new().issue(&["127.0.0.1"])), move |request| {
        stored(&blobs, request)
    });
    let blobs = image.blobs.clone();
    let layer = image.layers[0];
    let target = format!("https://{}/blobs/{layer}", foreign.host());
    let registry = Server::start(Some(&authority.issue(&["127.0.0.1"])), move |request| {
        match request.target.ends_with(&format!("blobs/{layer}")) {
            true => Answer::new(307, "").header("Location", target.clone()),
            false => stored(&blobs, request),
        }
    });
    let error = pull(&repository(&config, &registry.host(), "a/b"), image.index).await.unwrap_err();
    assert_says(&error, &["cannot get layer", "ca-certs must cover that host too"], &[]);
}
