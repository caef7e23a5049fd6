//! The audit trail: everything is in it, can be found, and goes when it is old.

use crate::{Database, fields, project};
use registry_store::{AuditEntry, AuditFilter, AuditOutcome};

crate::stories!(
    edits_say_who_made_them,
    many_entries_share_transactions,
    entries_are_found_by_each_field,
    old_entries_go
);

fn entry(at: i64, actor: &str, subject: &str) -> AuditEntry {
    AuditEntry {
        at,
        actor: actor.to_owned(),
        address: "127.0.0.1".to_owned(),
        action: "token".to_owned(),
        subject: subject.to_owned(),
        outcome: AuditOutcome::Granted,
        detail: "push".to_owned(),
        project: None,
        rule: None,
    }
}

async fn edits_say_who_made_them(database: &Database) {
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    let rule = store
        .create_rule("ann\u{1b}[31m", project, &fields("g/a*", "owner", ""))
        .await
        .unwrap();
    store.create_rule("ann", project, &fields("g/a*", "owner", "")).await.unwrap_err();
    let trail = store.audit(&AuditFilter::default()).await.unwrap();
    let actions: Vec<_> = trail.iter().map(|record| record.entry.action.as_str()).collect();
    assert_eq!(actions, ["rule.create", "project.create"], "what was not done is not in it");
    let made = &trail[0].entry;
    assert_eq!((made.actor.as_str(), made.subject.as_str()), ("ann\u{fffd}[31m", "g/a"));
    assert_eq!(
        (made.project, made.rule, made.outcome),
        (Some(project), Some(rule.id), AuditOutcome::Changed)
    );
    assert_eq!(made.detail, "g/a* push owner delete -");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    assert!((now - 600_000..=now).contains(&made.at));
}

async fn many_entries_share_transactions(database: &Database) {
    let store = database.open().await;
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let store = store.clone();
        callers.spawn(async move { store.record(entry(n, &format!("user{n}"), "g/a")).await });
    }
    for result in callers.join_all().await {
        result.unwrap();
    }
    let (mut seen, mut before) = (std::collections::HashSet::new(), None);
    loop {
        let page = store
            .audit(&AuditFilter {
                before,
                limit: 90,
                ..AuditFilter::default()
            })
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.is_sorted_by(|a, b| a.id > b.id), "the newest is first");
        before = Some(last.id);
        seen.extend(page.into_iter().map(|record| record.entry.actor));
    }
    assert_eq!(seen.len(), 1000);
    assert_eq!(
        store
            .audit(&AuditFilter {
                limit: 100_000,
                ..AuditFilter::default()
            })
            .await
            .unwrap()
            .len(),
        200
    );
}

async fn entries_are_found_by_each_field(database: &Database) {
    let store = database.open().await;
    let entries = [
        entry(1000, "ann", "g/a_b"),
        AuditEntry {
            outcome: AuditOutcome::Refused,
            project: Some(7),
            rule: Some(9),
            ..entry(2000, "bob", "g/aXb")
        },
        AuditEntry {
            action: "login".to_owned(),
            outcome: AuditOutcome::Unauthorized,
            ..entry(3000, "ann", "G/%ä")
        },
    ];
    for entry in &entries {
        store.record(entry.clone()).await.unwrap();
    }
    let all = AuditFilter::default();
    let text = |text: &str| Some(text.to_owned());
    for (filter, found) in [
        (
            AuditFilter {
                actor: text("ann"),
                ..all.clone()
            },
            vec![3000, 1000],
        ),
        (
            AuditFilter {
                action: text("login"),
                ..all.clone()
            },
            vec![3000],
        ),
        (
            AuditFilter {
                subject: text("g/a_"),
                ..all.clone()
            },
            vec![1000],
        ),
        (
            AuditFilter {
                subject: text("g/"),
                ..all.clone()
            },
            vec![2000, 1000],
        ),
        (
            AuditFilter {
                subject: text("G/%ä"),
                ..all.clone()
            },
            vec![3000],
        ),
        (
            AuditFilter {
                subject: text("g/a_b and more"),
                ..all.clone()
            },
            vec![],
        ),
        (
            AuditFilter {
                outcome: Some(AuditOutcome::Refused),
                ..all.clone()
            },
            vec![2000],
        ),
        (
            AuditFilter {
                project: Some(7),
                ..all.clone()
            },
            vec![2000],
        ),
        (
            AuditFilter {
                since: Some(2000),
                ..all.clone()
            },
            vec![3000, 2000],
        ),
        (
            AuditFilter {
                until: Some(2000),
                ..all.clone()
            },
            vec![1000],
        ),
        (
            AuditFilter {
                actor: text("ann"),
                since: Some(2000),
                subject: text("G"),
                ..all.clone()
            },
            vec![3000],
        ),
        (
            AuditFilter {
                actor: text("' OR 1 = 1 --"),
                ..all.clone()
            },
            vec![],
        ),
        (AuditFilter { limit: 1, ..all.clone() }, vec![3000]),
    ] {
        let records = store.audit(&filter).await.unwrap();
        assert_eq!(
            records.iter().map(|record| record.entry.at).collect::<Vec<_>>(),
            found,
            "{filter:?}"
        );
    }
    let records = store.audit(&all).await.unwrap();
    assert!(records.iter().rev().map(|record| &record.entry).eq(&entries));
}

async fn old_entries_go(database: &Database) {
    let store = database.open().await;
    for at in 0..30 {
        store.record(entry(at, "ann", "g/a")).await.unwrap();
    }
    assert_eq!(store.prune_audit(20, 1000).await.unwrap(), 20);
    let left = store.audit(&AuditFilter::default()).await.unwrap();
    assert!(left.len() == 10 && left.iter().all(|record| record.entry.at >= 20));
    assert_eq!(store.prune_audit(20, 1000).await.unwrap(), 0);
    assert_eq!(store.prune_audit(20, 3).await.unwrap(), 7);
    let left = store.audit(&AuditFilter::default()).await.unwrap();
    assert!(left.iter().map(|record| record.entry.at).eq([29, 28, 27]));
    let nobody = AuditFilter {
        actor: Some("a\0".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(store.audit(&nobody).await.unwrap(), []);
}
