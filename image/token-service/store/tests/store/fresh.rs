//! What was committed before a call is in its answer, whoever committed it.

use crate::{Database, fields, project};
use registry_rules::RuleId;
use registry_store::{NewToken, Store, User};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

crate::stories!(
    stores_see_each_others_edits_at_once,
    nobody_is_answered_from_the_past,
    what_did_not_change_is_not_loaded,
    additions_and_removals_reach_every_store,
);

async fn stores_see_each_others_edits_at_once(database: &Database) {
    let stores = [database.open().await, database.open().await];
    let project = project(&stores[0], "g/a").await;
    for n in 0..100 {
        let (writer, reader) = (&stores[n % 2], &stores[(n + 1) % 2]);
        let rule = writer
            .create_rule("root", project, &fields(&format!("g/a/{n}"), "owner", ""))
            .await
            .unwrap();
        for store in [reader, writer] {
            let snapshot = store.current().await.unwrap();
            assert!(snapshot.projects.by_id(project).unwrap().rules().contains(&rule), "{n}");
        }
        writer.delete_rule("root", project, rule.id).await.unwrap();
        let snapshot = reader.current().await.unwrap();
        assert!(snapshot.projects.by_id(project).unwrap().rules().is_empty(), "{n}");
    }
}

async fn nobody_is_answered_from_the_past(database: &Database) {
    let (writer, reader) = (database.open().await, database.open().await);
    let project = project(&writer, "g/a").await;
    let (committed, done) = (Arc::new(AtomicI64::new(RuleId::MIN)), Arc::new(AtomicBool::new(false)));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (reader, committed, done) = (reader.clone(), Arc::clone(&committed), Arc::clone(&done));
        readers.spawn(async move {
            let mut calls = 0_u32;
            while !done.load(Ordering::SeqCst) {
                let known = committed.load(Ordering::SeqCst);
                let snapshot = reader.current().await.unwrap();
                let last = snapshot
                    .projects
                    .by_id(project)
                    .unwrap()
                    .rules()
                    .last()
                    .map_or(RuleId::MIN, |rule| rule.id);
                assert!(last >= known, "rule {known} was committed, {last} is the last that is seen");
                calls += 1;
            }
            calls
        });
    }
    for n in 0..200 {
        let rule = writer
            .create_rule("root", project, &fields(&format!("g/a/{n}"), "owner", ""))
            .await
            .unwrap();
        committed.store(rule.id, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);
    let calls: u32 = readers.join_all().await.into_iter().sum();
    println!("{calls} calls saw 200 rules come");
}

async fn additions_and_removals_reach_every_store(database: &Database) {
    let (here, there) = (database.open().await, database.open().await);
    let names = async |store: &Store| {
        let snapshot = store.current().await.unwrap();
        let user = |user: &User| {
            assert_eq!(snapshot.user_by_id(user.id).unwrap(), user);
            assert_eq!(snapshot.user(&user.name).unwrap(), user);
            (user.name.clone(), user.blocked)
        };
        snapshot.users().map(user).collect::<Vec<_>>()
    };
    let mut ids = Vec::new();
    for name in ["m", "a", "z"] {
        ids.push(here.create_user("root", name, None, false).await.unwrap());
        assert_eq!(names(&here).await, names(&there).await);
    }
    here.set_blocked("root", ids[0], true).await.unwrap();
    let shown = |names: &[(&str, bool)]| names.iter().map(|(name, blocked)| (name.to_string(), *blocked)).collect::<Vec<_>>();
    assert_eq!(names(&there).await, shown(&[("a", false), ("m", true), ("z", false)]));
    here.delete_user("root", ids[1]).await.unwrap();
    there.create_user("root", "b", None, false).await.unwrap();
    assert_eq!(names(&there).await, shown(&[("b", false), ("m", true), ("z", false)]));
    assert_eq!(names(&here).await, names(&there).await);

    let new = |name: &str| NewToken::Personal {
        user: ids[2],
        name: name.to_owned(),
        read: true,
        write: true,
        api: true,
        expires: None,
    };
    let tokens = async |store: &Store| {
        let mut names: Vec<String> = store.current().await.unwrap().tokens().map(|token| token.name.clone()).collect();
        names.sort();
        names
    };
    let (first, _) = here.create_token("root", &new("first")).await.unwrap();
    assert_eq!(tokens(&there).await, ["first"]);
    there.create_token("root", &new("second")).await.unwrap();
    assert_eq!(tokens(&here).await, ["first", "second"]);
    there.revoke_token("root", first.id).await.unwrap();
    here.create_token("root", &new("third")).await.unwrap();
    assert_eq!(tokens(&here).await, ["second", "third"]);
    assert_eq!(tokens(&there).await, ["second", "third"]);
}

async fn what_did_not_change_is_not_loaded(database: &Database) {
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    let before = store.current().await.unwrap();
    let again = store.current().await.unwrap();
    assert!(Arc::ptr_eq(&before, &again));
    store.create_user("root", "ann", None, false).await.unwrap();
    let after = store.current().await.unwrap();
    assert!(after.version() > before.version() && after.user("ann").is_some());
    assert!(Arc::ptr_eq(&before.projects, &after.projects));
    store.create_rule("root", project, &fields("g/a", "owner", "")).await.unwrap();
    assert!(!Arc::ptr_eq(&before.projects, &store.current().await.unwrap().projects));
}
