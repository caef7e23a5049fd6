//! Pulls through Debian's squid, which alone knows the names of the registries.

use registry_client::{PullError, Repository};
use registry_testing::authority::Authority;
use registry_testing::image::Image;
use registry_testing::program::{Program, free_port, installed, run};
use registry_testing::registry::{Guard, NAME, Registry};
use registry_testing::{assert_says, repository, section};
use std::path::Path;
use std::process::Command;

const PASSWORD: &str = "proxy-hunter2";

/// Starts squid for a user, with a hosts file of its own.
fn squid(directory: &Path) -> (Program, u16) {
    let port = free_port();
    let path = |name: &str| directory.join(name).display().to_string();
    std::fs::write(path("hosts"), "127.0.0.1 registry.test\n").unwrap();
    let passwords = run(Command::new("htpasswd").args(["-nbm", "user", PASSWORD]));
    std::fs::write(path("passwords"), passwords).unwrap();
    // Squid gives root up, and its helper must still read the passwords.
    run(Command::new("chmod").args(["-R", "a+rwX", &directory.display().to_string()]));
    let config = format!(
        "http_port 127.0.0.1:{port}\nhosts_file {}\nauth_param basic program /usr/lib/squid/basic_ncsa_auth {}\n\
         acl user proxy_auth REQUIRED\nhttp_access allow user\nhttp_access deny all\ncache deny all\npid_filename none\n\
         access_log none\ncache_log {}\nnetdb_filename none\nshutdown_lifetime 0 seconds\nworkers 1\ncoredump_dir {}\n",
        path("hosts"),
        path("passwords"),
        path("cache.log"),
        path("")
    );
    std::fs::write(path("squid.conf"), config).unwrap();
    let mut command = Command::new("/usr/sbin/squid");
    command.args(["-N", "-f", &path("squid.conf")]);
    (Program::start(&mut command, &directory.join("log"), port), port)
}

async fn pull(repository: &Repository, image: &Image) -> Result<(), PullError> {
    let remote = repository.image(image.index, None).await?;
    let pulled = repository.each_layer(&remote.layers, |_, mut stream| async move {
        while stream.chunk().await?.is_some() {}
        Ok::<_, PullError>(())
    });
    pulled.await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_reached_through_the_proxy_of_the_configuration() {
    if !installed(
        "a_registry_is_reached_through_the_proxy_of_the_configuration",
        &["docker-registry", "skopeo", "squid", "htpasswd"],
    ) {
        return;
    }
    let image = Image::new(3, 10_000);
    let authority = Authority::new();
    let identity = authority.issue(&["registry.test"]);
    let registry = Registry::with(&image).guarded(&Guard {
        tls: Some(&identity),
        ..Guard::default()
    });
    // In a directory that squid's own user can reach.
    let directory = tempfile::Builder::new().prefix("casemate-squid").tempdir().unwrap();
    let (_squid, port) = squid(directory.path());
    let host = format!("registry.test:{}", registry.port);
    let through = |login: &str, rest: &str| {
        let proxy = format!("[extra-env]\nHTTPS_PROXY = 'http://{login}127.0.0.1:{port}'\n{rest}\n");
        let config = format!("{proxy}{}", section(&host, &authority.certificate, ""));
        repository(&config, &host, NAME)
    };
    pull(&through(&format!("user:{PASSWORD}@"), ""), &image).await.unwrap();

    for (login, rest, reason) in [
        ("user:wrong-hunter@", "", "no answer"),
        ("", "", "no answer"),
        (&format!("user:{PASSWORD}@"), "NO_PROXY = '.test'", "no answer"),
    ] {
        let error = pull(&through(login, rest), &image).await.unwrap_err();
        assert_says(
            &error,
            &["cannot reach the registry of", &host, reason],
            &[PASSWORD, "wrong-hunter"],
        );
    }
    // The certificate is checked through the tunnel too.
    let config = format!("[extra-env]\nHTTPS_PROXY = 'http://user:{PASSWORD}@127.0.0.1:{port}'\n");
    let error = pull(&repository(&config, &host, NAME), &image).await.unwrap_err();
    assert_says(&error, &["cannot reach the registry of", "UnknownIssuer"], &[PASSWORD]);
}
