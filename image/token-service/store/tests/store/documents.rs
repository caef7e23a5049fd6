//! Documents against a database: what is exported can be imported, all of it or nothing.

use crate::{Database, project};
use registry_rules::{MinimumLevel, PathPattern};
use registry_store::document::{Document, DocumentError, difference};

crate::stories!(a_database_becomes_the_document, an_import_is_whole_or_nothing);

const FIRST: &str = r#"
[[group]]
path = "g"
members = { ann = "owner" }

[[project]]
path = "g/a"
visibility = "private"
members = { bob = "developer" }
rules = [{ pattern = "g/a*", push = "maintainer", delete = "no_one" }, { pattern = "g/a/x", push = "admin" }]
tag_rules = [{ pattern = "^v\\d", push = "owner", delete = "owner" }, { pattern = "r" }]

[[project]]
path = "g/b"
visibility = "public"
"#;

/// The paths of a group and a project change places, and something of everything changes.
const SECOND: &str = r#"
[[group]]
path = "g/b"
members = { bob = "guest" }

[[project]]
path = "g"
visibility = "public"

[[project]]
path = "g/a"
visibility = "public"
members = { ann = "reporter" }
rules = [{ pattern = "g/a*", delete = "owner" }, { pattern = "g/a/y", push = "admin" }]
tag_rules = [{ pattern = "^v\\d" }, { pattern = "s", push = "owner", delete = "owner" }]
"#;

async fn a_database_becomes_the_document(database: &Database) {
    let store = database.open().await;
    for name in ["ann", "bob"] {
        store.create_user("root", name, None, false).await.unwrap();
    }
    for text in [FIRST, SECOND, FIRST] {
        let wanted = Document::parse(text).unwrap();
        let changes = difference(&store.current().await.unwrap(), &wanted).unwrap();
        for change in &changes {
            println!("{change}");
        }
        store.apply("root", &changes).await.unwrap();
        let snapshot = store.current().await.unwrap();
        assert_eq!(Document::of(&snapshot), wanted);
        assert_eq!(difference(&snapshot, &wanted), Ok(Vec::new()));
        assert_eq!(Document::parse(&Document::of(&snapshot).to_toml()), Ok(wanted));
    }
    // A rule with capitals that came from elsewhere is exported, and no difference to itself.
    let project = store.current().await.unwrap().projects.by_path("g/a").unwrap().id;
    let pattern = PathPattern::new("G/A/Old");
    store
        .import_rule("root", project, &pattern, Some(MinimumLevel::Owner), None)
        .await
        .unwrap();
    let snapshot = store.current().await.unwrap();
    let document = Document::parse(&Document::of(&snapshot).to_toml()).unwrap();
    assert_eq!(difference(&snapshot, &document), Ok(Vec::new()));
}

async fn an_import_is_whole_or_nothing(database: &Database) {
    let store = database.open().await;
    store.create_user("root", "ann", None, false).await.unwrap();
    let wanted = Document::parse(FIRST).unwrap();
    let before = store.current().await.unwrap();
    let unknown = difference(&before, &wanted);
    assert!(matches!(unknown, Err(DocumentError::UnknownUser { user, .. }) if user == "bob"));
    store.create_user("root", "bob", None, false).await.unwrap();
    let changes = difference(&store.current().await.unwrap(), &wanted).unwrap();
    // Somebody else was faster with the last project.
    project(&store, "g/b").await;
    let before = store.current().await.unwrap();
    store.apply("root", &changes).await.unwrap_err();
    let after = store.current().await.unwrap();
    assert_eq!(after.version(), before.version());
    assert_eq!(Document::of(&after), Document::of(&before));
}
