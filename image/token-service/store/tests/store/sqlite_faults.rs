//! SQLite in trouble: a full disk, a lock that nobody gives back, a file that is gone.

use crate::{Database, assert_unavailable, fields, project, sqlite_connection};
use registry_store::{AuditEntry, AuditFilter, AuditOutcome, EditError, Store, StoreError};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// Where the child finds its small disk.
const DISK: &str = "CASEMATE_TEST_DISK";

fn entry() -> AuditEntry {
    AuditEntry {
        at: 1,
        actor: "ann".to_owned(),
        address: String::new(),
        action: "token".to_owned(),
        subject: "g/a".to_owned(),
        outcome: AuditOutcome::Granted,
        detail: "x".repeat(2000),
        project: None,
        rule: None,
    }
}

fn file(database: &Database) -> PathBuf {
    PathBuf::from(database.url.strip_prefix("sqlite:").unwrap())
}

#[tokio::test]
async fn only_the_owner_reads_the_file() {
    let database = Database::sqlite();
    let store = database.open().await;
    project(&store, "g/a").await;
    let mut files = 0;
    for file in std::fs::read_dir(database.directory.as_ref().unwrap().path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log and the log's index");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let error = Store::open("sqlite:/nowhere/at/all.db").await.unwrap_err();
    assert!(
        matches!(error, StoreError::File { .. }) && error.to_string().contains("/nowhere/at/all.db"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_somebody_else_stops_edits_alone() {
    let database = Database::sqlite();
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    let mut other = sqlite_connection(&database.url).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let rule = fields("g/a", "owner", "");
    assert_unavailable(store.create_rule("root", project, &rule).await, "locked");
    assert_unavailable(store.record(entry()).await, "locked");
    store.current().await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    store.create_rule("root", project, &rule).await.unwrap();
    store.record(entry()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_gone_or_replaced_is_noticed() {
    let database = Database::sqlite();
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    let (path, away) = (file(&database), file(&database).with_extension("away"));
    let rule = fields("g/a", "owner", "");
    std::fs::rename(&path, &away).unwrap();
    assert_unavailable(store.current().await, "gone");
    assert_unavailable(store.create_rule("root", project, &rule).await, "gone");
    assert_unavailable(store.record(entry()).await, "gone");
    assert_unavailable(store.audit(&AuditFilter::default()).await, "gone");
    std::fs::copy(&away, &path).unwrap();
    assert_unavailable(store.current().await, "another file");
    std::fs::rename(&away, &path).unwrap();
    store.create_rule("root", project, &rule).await.unwrap();
    assert_eq!(store.current().await.unwrap().projects.by_id(project).unwrap().rules().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let database = Database::sqlite();
    std::fs::write(file(&database), "not a database, but as long as its header would be\n".repeat(100)).unwrap();
    let error = Store::open(&database.url).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_full_disk_refuses_edits_until_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=2m tmpfs \"$0\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite_faults::child", "--ignored", "--nocapture"])
        .env(DISK, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("the disk was full and is not"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the test above"]
async fn child() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else {
        return;
    };
    let url = format!("sqlite:{}", disk.join("registry.db").display());
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 512 << 10]).unwrap();
    let store = Store::open(&url).await.unwrap();
    let project = project(&store, "g/a").await;
    let mut made = 0;
    let refused = loop {
        match store
            .create_rule("root", project, &fields(&format!("g/a/{made}"), "owner", ""))
            .await
        {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 10_000, "the disk is not full");
    };
    assert_unavailable(Err::<(), _>(refused), "the disk is full");
    let refused = loop {
        if let Err(error) = store.record(entry()).await {
            break error;
        }
    };
    assert_unavailable(Err::<(), EditError>(refused.into()), "the disk is full");
    let rules = async || store.current().await.unwrap().projects.by_id(project).unwrap().rules().len();
    assert_eq!(rules().await, made);
    std::fs::remove_file(&ballast).unwrap();
    store.create_rule("root", project, &fields("g/a/more", "owner", "")).await.unwrap();
    store.record(entry()).await.unwrap();
    assert_eq!(rules().await, made + 1);
    println!("the disk was full and is not: {made} rules");
}
