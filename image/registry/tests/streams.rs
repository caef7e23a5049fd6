//! Blobs that break off on the way, mirrors, and logins that a registry asks for later.

use oci::Digest;
use registry_client::{BlobStream, Config, Credentials, Environment, PARALLEL, PullError, RegistryName, RemoteLayer, Repository, Secret};
use registry_testing::image::Image;
use registry_testing::server::{Answer, Body, Request, Server};
use registry_testing::{assert_says, repository};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// After which a test says that something waits for ever.
const HANGS: Duration = Duration::from_secs(60);
const OPEN: &str = "[registries.'.']\ninsecure-skip-verify = true";

fn ping(request: &Request) -> Option<Answer> {
    (request.target.split('?').next() == Some("/v2/")).then(|| Answer::new(200, "{}"))
}

fn stored(blobs: &BTreeMap<Digest, Vec<u8>>, request: &Request) -> Answer {
    let digest = request.target.rsplit('/').next().and_then(|name| name.parse().ok());
    let blob = digest.and_then(|digest: Digest| blobs.get(&digest));
    blob.map_or(Answer::new(404, "{}"), |blob| Answer::new(200, blob.clone()))
}

async fn read(repository: &Repository, image: &Image) -> Result<Vec<u8>, PullError> {
    let digest = image.layers[0];
    let mut stream = repository.blob(digest, image.blobs[&digest].len() as u64);
    let mut blob = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        blob.extend_from_slice(&chunk);
    }
    Ok(blob)
}

/// First byte of a range request.
fn first(request: &Request) -> Option<usize> {
    request
        .headers
        .get("range")?
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke() {
    let image = Image::new(1, 300_000);
    let blob = image.blobs[&image.layers[0]].clone();
    for ranges in [true, false] {
        let served = blob.clone();
        let cuts = AtomicUsize::new(0);
        let server = Server::start(None, move |request| {
            ping(request).unwrap_or_else(|| {
                let from = first(request).filter(|_| ranges).unwrap_or(0);
                let rest = &served[from..];
                // Three connections break, each a little later.
                let cut = 60_000 * (1 + cuts.fetch_add(1, Ordering::Relaxed));
                let body = match cut <= 180_000 {
                    true => Body::Cut(rest[..cut.min(rest.len() - 1)].to_vec(), rest.len() as u64),
                    false => Body::Whole(rest.to_vec()),
                };
                match first(request).is_some() && ranges {
                    true => Answer::of(206, body).header("Content-Range", format!("bytes {from}-{}/{}", served.len() - 1, served.len())),
                    false => Answer::of(200, body),
                }
            })
        });
        let pulled = read(&repository(OPEN, &server.host(), "a/b"), &image).await.unwrap();
        assert!(pulled == blob);
        let asked: Vec<usize> = server
            .requests()
            .iter()
            .skip(1)
            .map(|request| first(request).unwrap_or(0))
            .collect();
        assert!(asked.len() >= 3 && asked.is_sorted() && asked[1] > 0, "{asked:?}");
    }
}

/// The rest of a blob from a byte, as it was asked for.
fn rest(blob: &[u8], from: usize) -> Answer {
    Answer::new(206, &blob[from..]).header("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()))
}

#[tokio::test]
async fn a_stream_waits_for_a_registry_that_starts_again() {
    let image = Image::new(1, 100_000);
    let blob = image.blobs[&image.layers[0]].clone();
    let served = blob.clone();
    let asked = AtomicUsize::new(0);
    let server = Server::start(None, move |request| {
        ping(request).unwrap_or_else(|| match (asked.fetch_add(1, Ordering::Relaxed), first(request)) {
            (0, None) => Answer::of(200, Body::Cut(served[..50_000].to_vec(), served.len() as u64)),
            (1, Some(50_000)) => Answer::new(502, "<html>"),
            (2, Some(50_000)) => Answer::of(200, Body::Nothing),
            (3, Some(50_000)) => Answer::new(503, "{}"),
            (4, Some(50_000)) => rest(&served, 50_000),
            (count, first) => panic!("request {count} from {first:?}"),
        })
    });
    assert!(read(&repository(OPEN, &server.host(), "a/b"), &image).await.unwrap() == blob);
}

#[tokio::test]
async fn what_is_no_outage_is_not_waited_for() {
    let image = Image::new(1, 100_000);
    let blob = image.blobs[&image.layers[0]].clone();
    // The first request has no connection to resume, and a registry that says no after a break means it.
    for (status, breaks, reason) in [(502, false, "the server answers 502"), (404, true, "the server answers 404")] {
        let served = blob.clone();
        let server = Server::start(None, move |request| {
            ping(request).unwrap_or_else(|| match breaks && first(request).is_none() {
                true => Answer::of(200, Body::Cut(served[..50_000].to_vec(), served.len() as u64)),
                false => Answer::new(status, "{}"),
            })
        });
        let error = read(&repository(OPEN, &server.host(), "a/b"), &image).await.unwrap_err();
        assert_says(&error, &["cannot get layer", reason], &[]);
        assert_eq!(server.requests().len(), 2 + usize::from(breaks));
    }
}

#[tokio::test]
async fn a_blob_without_an_end_is_judged_by_its_digest() {
    let image = Image::new(1, 100_000);
    let blob = image.blobs[&image.layers[0]].clone();
    for is_changed in [false, true] {
        let mut served = blob.clone();
        served[10] ^= u8::from(is_changed);
        let server = Server::start(None, move |request| {
            ping(request).unwrap_or_else(|| Answer::of(200, Body::Unended(served.clone())))
        });
        let pulled = read(&repository(OPEN, &server.host(), "a/b"), &image).await;
        match is_changed {
            false => assert!(pulled.unwrap() == blob),
            true => assert_says(&pulled.unwrap_err(), &["the content has the digest"], &[]),
        }
        assert_eq!(server.requests().len(), 2, "nothing is missing after the last byte");
    }
}

#[tokio::test]
async fn another_part_and_another_blob_after_a_break_are_refused() {
    let image = Image::new(1, 100_000);
    let blob = image.blobs[&image.layers[0]].clone();
    for (name, reason) in [
        ("part", "another part of it"),
        ("content", "the content has the digest"),
        ("nothing", "it ends after 50000 of"),
    ] {
        let served = blob.clone();
        let server = Server::start(None, move |request| {
            ping(request).unwrap_or_else(|| match first(request) {
                None => Answer::of(200, Body::Cut(served[..50_000].to_vec(), served.len() as u64)),
                Some(from) => {
                    let mut rest = served[from..].to_vec();
                    rest[10] ^= 1;
                    let from = if name == "part" { from - 1 } else { from };
                    match name {
                        "nothing" => Answer::new(416, "{}"),
                        _ => Answer::new(206, rest).header("Content-Range", format!("bytes {from}-{}/*", served.len() - 1)),
                    }
                }
            })
        });
        let error = read(&repository(OPEN, &server.host(), "a/b"), &image).await.unwrap_err();
        assert_says(&error, &["cannot get layer", reason], &[]);
    }
}

#[tokio::test]
async fn a_failed_stream_does_not_end_well() {
    let server = Server::start(None, |request| ping(request).unwrap_or_else(|| Answer::new(404, "{}")));
    let repository = repository(OPEN, &server.host(), "a/b");
    let mut stream = repository.blob(Digest::of(b"x"), 1);
    assert!(stream.chunk().await.is_err());
    assert!(stream.chunk().await.is_err(), "None would mean that the blob is complete");
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_with_the_scope_that_is_missing() {
    let image = Image::new(1, 1000);
    let blob = image.blobs[&image.layers[0]].clone();
    let good = Arc::new(Mutex::new("one"));
    let expected = good.clone();
    let realm = Arc::new(Mutex::new(String::new()));
    let own = realm.clone();
    let server = Server::start(None, move |request| {
        let token = *expected.lock().unwrap();
        let challenge = format!(
            "Bearer realm=\"{}/token?x=1\",scope=\"repository:a/b:pull,read\"",
            own.lock().unwrap()
        );
        match (request.target.starts_with("/token"), request.headers.get("authorization")) {
            (true, _) => Answer::new(200, format!(r#"{{"access_token":"{token}","expires_in":3600}}"#)),
            (false, Some(header)) if *header == format!("Bearer {token}") => Answer::new(200, blob.clone()),
            _ => Answer::new(401, "{}").header("WWW-Authenticate", challenge),
        }
    });
    *realm.lock().unwrap() = format!("http://{}", server.host());
    let repository = repository(OPEN, &server.host(), "a/b");
    read(&repository, &image).await.unwrap();
    *good.lock().unwrap() = "two";
    read(&repository, &image).await.unwrap();
    let exchanges: Vec<String> = server
        .requests()
        .iter()
        .filter(|r| r.target.starts_with("/token"))
        .map(|r| r.target.clone())
        .collect();
    assert_eq!(
        exchanges,
        [
            "/token?x=1&scope=repository%3Aa%2Fb%3Apull",
            "/token?x=1&scope=repository%3Aa%2Fb%3Apull%2Cread&scope=repository%3Aa%2Fb%3Apull"
        ]
    );
}

#[tokio::test]
async fn a_new_refresh_token_takes_the_place_of_the_old_one() {
    let image = Image::new(1, 1000);
    let blob = image.blobs[&image.layers[0]].clone();
    let exchanges = AtomicUsize::new(0);
    let realm = Arc::new(Mutex::new(String::new()));
    let own = realm.clone();
    let server = Server::start(None, move |request| {
        let count = exchanges.load(Ordering::Relaxed);
        if request.method == "POST" {
            exchanges.store(count + 1, Ordering::Relaxed);
            return Answer::new(200, format!(r#"{{"access_token":"t{count}","refresh_token":"r{count}"}}"#));
        }
        // Each token is good for one blob.
        let used = request.target.contains("used");
        match request.headers.get("authorization") {
            Some(header) if !used && *header == format!("Bearer t{}", count.wrapping_sub(1)) => Answer::new(200, blob.clone()),
            _ => Answer::new(401, "{}").header("WWW-Authenticate", format!("Bearer realm=\"{}/token\"", own.lock().unwrap())),
        }
    });
    *realm.lock().unwrap() = format!("http://{}", server.host());
    let repository = repository(&format!("{OPEN}\nidentitytoken = 'first'"), &server.host(), "a/b");
    read(&repository, &image).await.unwrap();
    // A document that nobody may have: the token is renewed for it, once.
    assert!(repository.resolve("used").await.is_err());
    let posts: Vec<String> = server
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.body)
        .collect();
    assert!(
        posts.len() == 2 && posts[0].ends_with("refresh_token=first") && posts[1].ends_with("refresh_token=r0"),
        "{posts:?}"
    );
}

#[tokio::test]
async fn a_mirror_is_asked_in_place_of_the_registry() {
    let image = Image::new(1, 1000);
    let blob = image.blobs[&image.layers[0]].clone();
    let server = Server::start(None, move |request| match request.target.contains("blobs") {
        true => Answer::new(200, blob.clone()),
        false => Answer::new(200, "{}"),
    });
    for (registry, ns) in [("registry.test", "registry.test"), ("docker.io", "docker.io")] {
        let config = format!(
            "[registries.'{registry}']\ninsecure-skip-verify = true\nmirror = 'http://{}/cache/?key=1'",
            server.host()
        );
        read(&repository(&config, registry, "a/b"), &image).await.unwrap();
        let target = server.requests().last().unwrap().target.clone();
        assert_eq!(target, format!("/cache/v2/a/b/blobs/{}?key=1&ns={ns}", image.layers[0]));
    }
}

#[tokio::test]
async fn a_mirror_does_not_get_the_login_of_the_registry() {
    let image = Image::new(1, 1000);
    let server = Server::start(None, |request| match request.headers.contains_key("authorization") {
        true => Answer::new(404, "{}"),
        false => Answer::new(401, "{}").header("WWW-Authenticate", "Basic realm=x"),
    });
    let section = format!(
        "[registries.'registry.test']\ninsecure-skip-verify = true\nmirror = 'http://{}'",
        server.host()
    );
    for (own, reason) in [
        (
            "",
            "no credentials, section \"registry.test\"; not sent to its mirror: file config.json",
        ),
        ("\nauth = 'b3duOm93bg=='", "the server answers 404"),
    ] {
        let config = Config::parse(&format!("{section}{own}")).unwrap();
        let access = config.access(&RegistryName::new("registry.test"), &Environment::default()).unwrap();
        let login = Credentials::new(Some("user".to_owned()), Some(Secret::new("hunter2".to_owned())), None, None, None).unwrap();
        let access = access.or_credentials(login, "file config.json".to_owned());
        let error = read(&Repository::new(access, "a/b").unwrap(), &image).await.unwrap_err();
        assert_says(&error, &["cannot get layer", reason], &["hunter2"]);
    }
    let sent: Vec<String> = server
        .requests()
        .iter()
        .filter_map(|request| request.headers.get("authorization").cloned())
        .collect();
    assert_eq!(sent, ["Basic b3duOm93bg=="]);
}

/// Pulls an image's layers, and gives their lengths.
async fn lengths(repository: &Repository, layers: &[RemoteLayer]) -> Result<Vec<usize>, PullError> {
    let act = async |_: &RemoteLayer, mut stream: BlobStream<'_>| {
        let mut length = 0;
        while let Some(chunk) = stream.chunk().await? {
            length += chunk.len();
        }
        Ok(length)
    };
    repository.each_layer(layers, act).await
}

#[tokio::test]
async fn a_layer_may_wait_for_its_turn() {
    let image = Image::new(1, 1000);
    let blobs = image.blobs.clone();
    let server = Server::start(None, move |request| ping(request).unwrap_or_else(|| stored(&blobs, request)));
    let repository = repository(OPEN, &server.host(), "a/b");
    let mut stream = repository.blob(image.layers[0], image.blobs[&image.layers[0]].len() as u64);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    tokio::time::resume();
    while stream.chunk().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_layer_that_occurs_twice_is_pulled_once() {
    let image = Image::new(3, 1000);
    let blobs = image.blobs.clone();
    let server = Server::start(None, move |request| ping(request).unwrap_or_else(|| stored(&blobs, request)));
    let repository = repository(OPEN, &server.host(), "a/b");
    let remote = repository.image(image.index, None).await.unwrap();
    let mut layers: Vec<RemoteLayer> = [0, 1, 0, 2, 1, 0].map(|number: usize| remote.layers[number].clone()).into();
    let asked = |part: &str| server.requests().iter().filter(|request| request.target.contains(part)).count();
    let before = asked("/blobs/");
    let expected: Vec<usize> = layers.iter().map(|layer| layer.size as usize).collect();
    assert_eq!(lengths(&repository, &layers).await.unwrap(), expected);
    assert_eq!(asked("/blobs/") - before, 3);

    // The same blob with another content is not the same layer: whoever unpacks it must see both statements.
    layers[2].diff_id = remote.layers[1].diff_id;
    assert_eq!(lengths(&repository, &layers).await.unwrap(), expected);
    assert_eq!(asked("/blobs/") - before, 7);
}

#[tokio::test]
async fn a_long_layer_does_not_keep_the_others_waiting() {
    let image = Image::new(3 * PARALLEL, 1000);
    let blobs = image.blobs.clone();
    let server = Server::start(None, move |request| ping(request).unwrap_or_else(|| stored(&blobs, request)));
    let repository = repository(OPEN, &server.host(), "a/b");
    let remote = repository.image(image.index, None).await.unwrap();
    // The first layer ends when all others have.
    let others = tokio::sync::Semaphore::new(0);
    let (others, first, count) = (&others, &remote.layers[0], remote.layers.len() as u32 - 1);
    let act = async |layer: &RemoteLayer, mut stream: BlobStream<'_>| {
        let is_first = layer == first;
        while stream.chunk().await?.is_some() {}
        match is_first {
            true => others.acquire_many(count).await.unwrap().forget(),
            false => others.add_permits(1),
        }
        Ok::<_, PullError>(is_first)
    };
    let pulled = tokio::time::timeout(HANGS, repository.each_layer(&remote.layers, act)).await;
    let ended = pulled.expect("the others wait for the first").unwrap();
    assert!(
        ended[0] && ended[1..].iter().all(|is_first| !is_first),
        "in the order of the layers"
    );
}

/// An agent pulls in tasks of a runtime with several threads.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_in_a_task_of_its_own() {
    let image = Image::new(3, 1000);
    let blobs = image.blobs.clone();
    let server = Server::start(None, move |request| ping(request).unwrap_or_else(|| stored(&blobs, request)));
    let repository = repository(OPEN, &server.host(), "a/b");
    let index = image.index;
    let task = tokio::spawn(async move {
        let remote = repository.image(index, None).await?;
        let lengths = repository.each_layer(&remote.layers, |_, mut stream| async move {
            let mut length = 0;
            while let Some(chunk) = stream.chunk().await? {
                length += chunk.len();
            }
            Ok::<_, PullError>(length)
        });
        lengths.await
    });
    let lengths: Vec<usize> = image.layers.iter().map(|layer| image.blobs[layer].len()).collect();
    assert_eq!(task.await.unwrap().unwrap(), lengths);
}
