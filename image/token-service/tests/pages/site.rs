//! The service on loopback with a database of its own, filled with what the pages show.

use registry_rules::{Role, Visibility};
use registry_store::{Holder, NewToken, RuleFields, Store, UserId};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use tempfile::TempDir;
use token_service::{Config, KeyAlgorithm, hash_password, new_key, serve};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The password of every user.
pub const PASSWORD: &str = "correct horse battery";

/// A running service.
pub struct Site {
    pub address: SocketAddr,
    /// A second opening of its database, as another instance would have it.
    pub store: Store,
    pub runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    pub directory: TempDir,
}

impl Site {
    /// Starts it with users of every role, three projects, rules and tokens.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        new_key(KeyAlgorithm::Es256, &path("key.pem"), &path("certificate.pem")).unwrap();
        let database = format!("sqlite:{}", path("registry.db").display());
        let config = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"test\"\nservices = [\"container_registry\"]\ndatabase = {database:?}\n\
             [[keys]]\nkey = {:?}\ncertificate = {:?}\n",
            path("key.pem"),
            path("certificate.pem")
        );
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(async {
            let store = Store::open(&database).await.unwrap();
            fill(&store).await;
            store
        });
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = std::thread::spawn(move || {
            let config = Config::parse(&config).unwrap();
            let ready = move |address| ready.send(address).unwrap();
            let stop = async move { _ = stopped.await };
            Runtime::new().unwrap().block_on(serve(config, ready, stop)).unwrap();
        });
        Self {
            address: started.recv().expect("the service starts"),
            store,
            runtime,
            stop: Some(stop),
            running: Some(running),
            directory,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The number of a user.
    pub fn user(&self, name: &str) -> UserId {
        self.runtime.block_on(self.store.current()).unwrap().user(name).unwrap().id
    }

    /// The number of a project.
    pub fn project(&self, path: &str) -> i64 {
        self.runtime
            .block_on(self.store.current())
            .unwrap()
            .projects
            .by_path(path)
            .unwrap()
            .id
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            _ = running.join();
        }
    }
}

async fn fill(store: &Store) {
    let by = "command line";
    let hash = hash_password(PASSWORD).unwrap();
    let mut users = Vec::new();
    for name in ["ada", "olivia", "max", "dora", "rita", "gustav", "stranger", "bob"] {
        users.push(store.create_user(by, name, Some(&hash), name == "ada").await.unwrap());
    }
    let [_, olivia, max, dora, rita, gustav, _, bob] = users[..] else {
        unreachable!()
    };
    store.set_blocked(by, bob, true).await.unwrap();
    let group = store.create_group(by, &"flightjs".parse().unwrap()).await.unwrap();
    store.set_member(by, Holder::Group(group), olivia, Some(Role::Owner)).await.unwrap();
    store
        .set_member(by, Holder::Group(group), rita, Some(Role::Reporter))
        .await
        .unwrap();
    let project = |path: &str, visibility| {
        let path = path.parse().unwrap();
        async move { store.create_project(by, &path, visibility).await.unwrap() }
    };
    let flight = project("flightjs/flight", Visibility::Private).await;
    project("flightjs/site", Visibility::Public).await;
    project("secret/vault", Visibility::Private).await;
    for (user, role) in [
        (max, Role::Maintainer),
        (dora, Role::Developer),
        (gustav, Role::Guest),
        (bob, Role::Developer),
    ] {
        store.set_member(by, Holder::Project(flight), user, Some(role)).await.unwrap();
    }
    let fields = |pattern: &str, push: &str, delete: &str| RuleFields {
        pattern: pattern.to_owned(),
        push: Some(push.to_owned()),
        delete: Some(delete.to_owned()),
    };
    for (pattern, push, delete) in [
        ("flightjs/flight/release*", "owner", "no_one"),
        ("flightjs/flight/fragments/*", "maintainer", "admin"),
        ("flightjs/flight/scratch", "", "owner"),
    ] {
        store.create_rule(by, flight, &fields(pattern, push, delete)).await.unwrap();
    }
    store.create_tag_rule(by, flight, &fields("^v\\d+\\.\\d+", "", "")).await.unwrap();
    store
        .create_tag_rule(by, flight, &fields("latest", "maintainer", "owner"))
        .await
        .unwrap();
    let deploy = NewToken::Deploy {
        project: flight,
        name: "cluster".to_owned(),
        login: "flight-cluster".to_owned(),
        read: true,
        write: true,
        expires: None,
    };
    store.create_token(by, &deploy).await.unwrap();
    let personal = NewToken::Personal {
        user: max,
        name: "laptop".to_owned(),
        read: true,
        write: true,
        api: false,
        expires: Some(4_102_444_800),
    };
    store.create_token(by, &personal).await.unwrap();
}
