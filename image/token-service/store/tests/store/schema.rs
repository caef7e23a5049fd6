//! The schema: made once by however many come at the same time, and never that of a later version.

use crate::{Database, fields, project};
use registry_store::{Store, StoreError};

crate::stories!(
    many_open_a_new_database_at_once,
    a_later_schema_is_refused,
    what_nobody_wrote_is_corrupt,
    a_closed_store_says_so
);

async fn many_open_a_new_database_at_once(database: &Database) {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = database.url.clone();
        opening.spawn(async move { Store::open(&url).await });
    }
    for store in opening.join_all().await {
        store.unwrap().health().await.unwrap();
    }
}

async fn a_later_schema_is_refused(database: &Database) {
    database.open().await.close().await;
    database.execute("INSERT INTO schema_step (step) VALUES (1000)").await;
    let refused = Store::open(&database.url).await;
    assert!(
        matches!(refused, Err(StoreError::NewerSchema { found: 1000, known: 1 })),
        "{refused:?}"
    );
}

async fn what_nobody_wrote_is_corrupt(database: &Database) {
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    store.create_rule("root", project, &fields("g/a", "owner", "")).await.unwrap();
    store.current().await.unwrap();
    database
        .execute("UPDATE rules SET push = 'anybody'; UPDATE state SET version = version + 1, projects = version + 1")
        .await;
    let corrupt = store.current().await;
    assert!(
        matches!(&corrupt, Err(StoreError::Corrupt { what, .. }) if what == "a level"),
        "{corrupt:?}"
    );
    database.execute("UPDATE rules SET push = 'admin'").await;
    store.current().await.unwrap();
}

async fn a_closed_store_says_so(database: &Database) {
    let store = database.open().await;
    store.close().await;
    crate::assert_unavailable(store.current().await, "closed");
    crate::assert_unavailable(store.create_user("root", "ann", None, false).await, "closed");
}

#[tokio::test]
async fn other_urls_are_refused_without_being_shown() {
    for url in [
        "mysql://ann:secret@h/d",
        "secret.db",
        "sqlite:",
        "sqlite::memory:",
        "postgres://ann:secret@[h/d",
    ] {
        let error = Store::open(url).await.unwrap_err();
        assert!(matches!(error, StoreError::Url { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}
