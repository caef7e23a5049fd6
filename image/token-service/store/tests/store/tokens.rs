//! Tokens: known by their digest alone, bound to their user and project.

use crate::{Database, project};
use registry_store::{EditError, NewToken, TokenDigest, TokenKind};

/// The year 2100.
const LATER: i64 = 4_102_444_800;

crate::stories!(
    tokens_are_known_by_their_digest,
    logins_belong_to_one,
    tokens_go_with_what_they_are_of
);

fn personal(user: i64, name: &str, expires: Option<i64>) -> NewToken {
    let (read, write, api) = (true, false, false);
    let name = name.to_owned();
    NewToken::Personal {
        user,
        name,
        read,
        write,
        api,
        expires,
    }
}

fn deploy(project: i64, login: &str) -> NewToken {
    NewToken::Deploy {
        project,
        name: "deploy".to_owned(),
        login: login.to_owned(),
        read: true,
        write: true,
        expires: None,
    }
}

async fn tokens_are_known_by_their_digest(database: &Database) {
    let store = database.open().await;
    let user = store.create_user("root", "ann", None, false).await.unwrap();
    let (record, secret) = store.create_token("ann", &personal(user, "laptop", Some(LATER))).await.unwrap();
    let snapshot = store.current().await.unwrap();
    let known = snapshot.token(&TokenDigest::of(secret.expose())).unwrap();
    assert_eq!(*known, record);
    assert_eq!(
        known.kind,
        TokenKind::Personal {
            user,
            read: true,
            write: false,
            api: false
        }
    );
    assert!(known.is_valid_at(LATER - 1) && !known.is_valid_at(LATER));
    assert!(snapshot.token(&TokenDigest::of(&secret.expose()[4..])).is_none());

    // Neither the trail nor the file has the secret.
    let trail = store.audit(&Default::default()).await.unwrap();
    assert!(!format!("{trail:?}{snapshot:?}").contains(&secret.expose()[4..]));
    if let Some(directory) = &database.directory {
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(20).any(|window| window == &secret.expose().as_bytes()[4..24]));
        }
    }
    for (name, expires) in [("", None), ("a\nb", None), ("late", Some(1))] {
        let refused = store.create_token("ann", &personal(user, name, expires)).await;
        assert!(matches!(refused, Err(EditError::Invalid(_))), "{name}");
    }
    assert!(matches!(
        store.create_token("ann", &personal(user + 1, "x", None)).await,
        Err(EditError::NotFound("user"))
    ));
    store.revoke_token("ann", record.id).await.unwrap();
    assert_eq!(store.current().await.unwrap().tokens().len(), 0);
    assert!(matches!(
        store.revoke_token("ann", record.id).await,
        Err(EditError::NotFound("token"))
    ));
}

async fn logins_belong_to_one(database: &Database) {
    let store = database.open().await;
    let (a, b) = (project(&store, "g/a").await, project(&store, "g/b").await);
    store.create_user("root", "ann", None, false).await.unwrap();
    store.create_token("root", &deploy(a, "robot")).await.unwrap();
    store.create_token("root", &deploy(a, "robot")).await.unwrap();
    for (project, login) in [(b, "robot"), (b, "ann")] {
        assert!(
            matches!(store.create_token("root", &deploy(project, login)).await, Err(EditError::Taken(_))),
            "{login}"
        );
    }
    for login in ["ci-token", "Robot", ""] {
        assert!(
            matches!(store.create_token("root", &deploy(b, login)).await, Err(EditError::Invalid(_))),
            "{login}"
        );
    }
    assert!(matches!(
        store.create_user("root", "robot", None, false).await,
        Err(EditError::Taken(_))
    ));
}

async fn tokens_go_with_what_they_are_of(database: &Database) {
    let store = database.open().await;
    let (a, b) = (project(&store, "g/a").await, project(&store, "g/b").await);
    let user = store.create_user("root", "ann", None, false).await.unwrap();
    let soon = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64
        + 3600;
    for project in [a, b] {
        store
            .create_token("root", &deploy(project, &format!("robot{project}")))
            .await
            .unwrap();
        let job = NewToken::Job {
            user,
            project,
            expires: soon,
        };
        let (record, secret) = store.create_token("ci", &job).await.unwrap();
        assert_eq!(record.kind, TokenKind::Job { user, project });
        assert!(secret.expose().starts_with("cmj_"));
    }
    let job = NewToken::Job {
        user,
        project: a,
        expires: LATER,
    };
    assert!(matches!(store.create_token("ci", &job).await, Err(EditError::Invalid(_))));
    store.create_token("ann", &personal(user, "laptop", None)).await.unwrap();
    assert_eq!(store.current().await.unwrap().tokens().len(), 5);
    store.delete_project("root", a).await.unwrap();
    assert_eq!(store.current().await.unwrap().tokens().len(), 3);
    store.delete_user("root", user).await.unwrap();
    let snapshot = store.current().await.unwrap();
    let left: Vec<_> = snapshot.tokens().map(|token| token.kind.word()).collect();
    assert_eq!(left, ["deploy"]);
}
