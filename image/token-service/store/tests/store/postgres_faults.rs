//! PostgreSQL in trouble: a server that is gone and comes back, a lock that nobody gives back, a password that is wrong.

use crate::{assert_unavailable, fields, project};
use postgres_testing::Postgres;
use registry_store::{Store, StoreError};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = Postgres::start();
    let store = Store::open(&server.database("here")).await.unwrap();
    let project = project(&store, "g/a").await;
    server.stop();
    for error in [store.current().await.map(drop), store.health().await] {
        assert_unavailable(error, "connection");
    }
    assert_unavailable(store.create_rule("root", project, &fields("g/a", "owner", "")).await, "connection");
    server.run();
    store.create_rule("root", project, &fields("g/a", "owner", "")).await.unwrap();
    assert_eq!(store.current().await.unwrap().projects.by_id(project).unwrap().rules().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_somebody_else_stops_edits_alone() {
    let server = Postgres::start();
    let url = server.database("here");
    let store = Store::open(&url).await.unwrap();
    let project = project(&store, "g/a").await;
    let mut other = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE state SET version = version")
        .execute(&mut other)
        .await
        .unwrap();
    assert_unavailable(store.create_rule("root", project, &fields("g/a", "owner", "")).await, "locked");
    store.current().await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    store.create_rule("root", project, &fields("g/a", "owner", "")).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = Postgres::start();
    let url = server.database("here");
    let wrong = url.replace("of-tests", "sesame");
    assert_ne!(url, wrong);
    let error = Store::open(&wrong).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { reason, .. } if reason.contains("refuses access")),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("sesame"));
    Store::open(&server.by_socket("here")).await.unwrap();
}
