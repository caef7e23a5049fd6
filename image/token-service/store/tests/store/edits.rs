//! Users, groups, projects, members and rules: what can be done, and what is refused.

use crate::{Database, fields, project};
use registry_rules::{MinimumLevel, PathPattern, Role, Roles, RuleFault, TagRuleFault, Visibility};
use registry_store::{EditError, Holder, PasswordHash, RuleChange};

crate::stories!(
    users_come_change_and_go,
    paths_belong_to_one_thing,
    members_have_roles_where_they_are_members,
    rules_are_checked_made_changed_and_deleted,
    rules_of_other_systems_come_as_they_are,
    tag_rules_are_few_and_have_both_levels_or_none,
    one_of_many_wins_a_pattern,
);

async fn users_come_change_and_go(database: &Database) {
    let store = database.open().await;
    let hash: PasswordHash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA".parse().unwrap();
    let ann = store.create_user("root", "ann", Some(&hash), true).await.unwrap();
    let bob = store.create_user("root", "bob", None, false).await.unwrap();
    let snapshot = store.current().await.unwrap();
    let user = snapshot.user("ann").unwrap();
    assert_eq!((user.id, user.administrator, user.blocked), (ann, true, false));
    assert_eq!(user.password.as_ref().map(PasswordHash::as_phc), Some(hash.as_phc()));
    assert!(!format!("{snapshot:?}").contains("argon2id"));
    assert_eq!(snapshot.user_by_id(bob).unwrap().password, None);
    assert_eq!(snapshot.users().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["ann", "bob"]);

    assert!(matches!(
        store.create_user("root", "ann", None, false).await,
        Err(EditError::Taken(_))
    ));
    for name in ["Ann", "", "gitlab-ci-token", "a\0"] {
        assert!(
            matches!(store.create_user("root", name, None, false).await, Err(EditError::Invalid(_))),
            "{name}"
        );
    }
    store.set_password("root", ann, None).await.unwrap();
    store.set_blocked("root", ann, true).await.unwrap();
    store.set_administrator("root", ann, false).await.unwrap();
    let snapshot = store.current().await.unwrap();
    let user = snapshot.user("ann").unwrap();
    assert_eq!((user.password.as_ref(), user.administrator, user.blocked), (None, false, true));

    let project = project(&store, "g/a").await;
    store
        .set_member("root", Holder::Project(project), ann, Some(Role::Owner))
        .await
        .unwrap();
    store.delete_user("root", ann).await.unwrap();
    let snapshot = store.current().await.unwrap();
    assert!(snapshot.user("ann").is_none() && snapshot.members(Holder::Project(project)).is_empty());
    assert!(matches!(store.delete_user("root", ann).await, Err(EditError::NotFound("user"))));
    assert!(matches!(
        store.set_blocked("root", ann, true).await,
        Err(EditError::NotFound("user"))
    ));
    assert!(matches!(
        store.set_password("root", ann, None).await,
        Err(EditError::NotFound("user"))
    ));
    // Numbers are not given twice: who had one may stand in the audit trail.
    assert!(store.create_user("root", "cat", None, false).await.unwrap() > bob);
}

async fn paths_belong_to_one_thing(database: &Database) {
    let store = database.open().await;
    let (a, b) = ("g".parse().unwrap(), "g/b".parse().unwrap());
    let group = store.create_group("root", &a).await.unwrap();
    let project = store.create_project("root", &b, Visibility::Public).await.unwrap();
    for path in [&a, &b] {
        assert!(matches!(store.create_group("root", path).await, Err(EditError::Taken(_))));
        let again = store.create_project("root", path, Visibility::Public).await;
        assert!(matches!(again, Err(EditError::Taken(_))));
    }
    store.set_visibility("root", project, Visibility::Private).await.unwrap();
    let snapshot = store.current().await.unwrap();
    assert_eq!(snapshot.projects.by_path("g/b").unwrap().visibility, Visibility::Private);
    assert_eq!(snapshot.group("g").unwrap().id, group);
    store.delete_group("root", group).await.unwrap();
    store.delete_project("root", project).await.unwrap();
    let snapshot = store.current().await.unwrap();
    assert!(snapshot.groups().len() == 0 && snapshot.projects.iter().count() == 0);
    assert!(matches!(store.delete_group("root", group).await, Err(EditError::NotFound("group"))));
    assert!(matches!(
        store.delete_project("root", project).await,
        Err(EditError::NotFound("project"))
    ));
    store.create_group("root", &b).await.unwrap();
}

async fn members_have_roles_where_they_are_members(database: &Database) {
    let store = database.open().await;
    let user = store.create_user("root", "ann", None, false).await.unwrap();
    let group = Holder::Group(store.create_group("root", &"g".parse().unwrap()).await.unwrap());
    let (inside, outside) = (project(&store, "g/s/a").await, project(&store, "gs/a").await);
    let role = async |project| store.current().await.unwrap().roles(user).role_in(project);
    store.set_member("root", group, user, Some(Role::Reporter)).await.unwrap();
    assert_eq!((role(inside).await, role(outside).await), (Some(Role::Reporter), None));
    store.set_member("root", group, user, Some(Role::Maintainer)).await.unwrap();
    store
        .set_member("root", Holder::Project(inside), user, Some(Role::Guest))
        .await
        .unwrap();
    assert_eq!(role(inside).await, Some(Role::Maintainer));
    store.set_member("root", group, user, None).await.unwrap();
    assert_eq!(role(inside).await, Some(Role::Guest));

    assert!(matches!(
        store.set_member("root", group, user, None).await,
        Err(EditError::NotFound("member"))
    ));
    let nobody = store.set_member("root", group, user + 1, Some(Role::Owner)).await;
    assert!(matches!(nobody, Err(EditError::NotFound("user"))));
    let nowhere = store
        .set_member("root", Holder::Project(outside + 1), user, Some(Role::Owner))
        .await;
    assert!(matches!(nowhere, Err(EditError::NotFound("project"))));
}

async fn rules_are_checked_made_changed_and_deleted(database: &Database) {
    let store = database.open().await;
    let (a, b) = (project(&store, "g/a").await, project(&store, "g/b").await);
    let rule = store.create_rule("root", a, &fields("g/a*", "maintainer", "")).await.unwrap();
    assert_eq!((rule.push, rule.delete), (Some(MinimumLevel::Maintainer), None));
    store.create_rule("root", b, &fields("g/b*", "", "no_one")).await.unwrap();
    let snapshot = store.current().await.unwrap();
    assert_eq!(snapshot.projects.by_id(a).unwrap().rules(), std::slice::from_ref(&rule));

    let faults = async |fields| match store.create_rule("root", a, &fields).await {
        Err(EditError::Rule(faults)) => faults,
        other => panic!("{other:?}"),
    };
    assert_eq!(faults(fields("g/a*", "owner", "")).await, [RuleFault::PatternTaken]);
    assert_eq!(
        faults(fields("g/b\0", "x", "")).await,
        [RuleFault::PatternFormat, RuleFault::PatternOutsideProject, RuleFault::LevelUnknown]
    );
    assert_eq!(
        faults(fields("", "", "")).await,
        [RuleFault::PatternBlank, RuleFault::LevelsMissing]
    );
    assert_eq!(
        faults(fields(&format!("g/a{}", "a".repeat(300)), "owner", "")).await,
        [RuleFault::PatternTooLong]
    );

    let change = |pattern: Option<&str>, push: Option<&str>, delete: Option<&str>| RuleChange {
        pattern: pattern.map(str::to_owned),
        push: push.map(str::to_owned),
        delete: delete.map(str::to_owned),
    };
    let cleared = store.update_rule("root", a, rule.id, &change(None, Some(""), None)).await;
    assert!(matches!(cleared, Err(EditError::Rule(faults)) if faults == [RuleFault::LevelsMissing]));
    // A rule does not stand in its own way.
    let same = store
        .update_rule("root", a, rule.id, &change(Some("g/a*"), Some(""), Some("owner")))
        .await
        .unwrap();
    assert_eq!((same.id, same.push, same.delete), (rule.id, None, Some(MinimumLevel::Owner)));
    assert_eq!(store.current().await.unwrap().projects.by_id(a).unwrap().rules(), [same]);

    assert!(matches!(
        store.update_rule("root", b, rule.id, &change(None, None, None)).await,
        Err(EditError::NotFound("rule"))
    ));
    assert!(matches!(
        store.delete_rule("root", b, rule.id).await,
        Err(EditError::NotFound("rule"))
    ));
    assert!(matches!(
        store.delete_rule("root", -1, rule.id).await,
        Err(EditError::NotFound("project"))
    ));
    store.delete_rule("root", a, rule.id).await.unwrap();
    let snapshot = store.current().await.unwrap();
    assert!(snapshot.projects.by_id(a).unwrap().rules().is_empty());
    assert_eq!(snapshot.projects.by_id(b).unwrap().rules().len(), 1);
}

async fn rules_of_other_systems_come_as_they_are(database: &Database) {
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    let import = async |pattern: &str, push| store.import_rule("root", project, &PathPattern::new(pattern), push, None).await;
    let rule = import("Other/A*", Some(MinimumLevel::Admin)).await.unwrap();
    assert_eq!(store.current().await.unwrap().projects.by_id(project).unwrap().rules(), [rule]);
    let fault = |result| match result {
        Err(EditError::Rule(faults)) => faults,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        fault(import("other/a*", Some(MinimumLevel::Owner)).await),
        [RuleFault::PatternTaken]
    );
    assert_eq!(fault(import("x", None).await), [RuleFault::LevelsMissing]);
    assert_eq!(fault(import(" ", Some(MinimumLevel::Owner)).await), [RuleFault::PatternBlank]);
    assert_eq!(fault(import("x\0", Some(MinimumLevel::Owner)).await), [RuleFault::PatternFormat]);
}

async fn tag_rules_are_few_and_have_both_levels_or_none(database: &Database) {
    let store = database.open().await;
    let project = project(&store, "g/a").await;
    let first = store
        .create_tag_rule("root", project, &fields("^v\\d", "owner", "no_one"))
        .await
        .unwrap();
    assert!(
        store
            .create_tag_rule("root", project, &fields("^release", "", ""))
            .await
            .unwrap()
            .levels
            .is_none()
    );
    let again = store.create_tag_rule("root", project, &fields("^v\\d", "", "")).await;
    assert!(matches!(again, Err(EditError::Taken(_))));
    for (pattern, push, fault) in [
        ("a", "owner", TagRuleFault::OneLevel),
        ("(", "", TagRuleFault::PatternSyntax),
        ("\0", "", TagRuleFault::PatternSyntax),
    ] {
        let made = store.create_tag_rule("root", project, &fields(pattern, push, "")).await;
        assert!(matches!(made, Err(EditError::TagRule(faults)) if faults == [fault]), "{pattern}");
    }
    let immutable = RuleChange {
        push: Some(String::new()),
        delete: Some(String::new()),
        ..RuleChange::default()
    };
    let changed = store.update_tag_rule("root", project, first.id, &immutable).await.unwrap();
    assert_eq!((changed.id, changed.levels), (first.id, None));
    for n in 0..3 {
        store
            .create_tag_rule("root", project, &fields(&format!("{n}"), "", ""))
            .await
            .unwrap();
    }
    assert!(matches!(
        store.create_tag_rule("root", project, &fields("more", "", "")).await,
        Err(EditError::Limit(_))
    ));
    store.delete_tag_rule("root", project, first.id).await.unwrap();
    assert!(matches!(
        store.delete_tag_rule("root", project, first.id).await,
        Err(EditError::NotFound("tag rule"))
    ));
    assert_eq!(store.current().await.unwrap().projects.by_id(project).unwrap().tag_rules().len(), 4);
}

async fn one_of_many_wins_a_pattern(database: &Database) {
    let (here, there) = (database.open().await, database.open().await);
    let project = project(&here, "g/a").await;
    for round in 0..10 {
        let wanted = fields(&format!("g/a{round}*"), "owner", "");
        let mut edits = tokio::task::JoinSet::new();
        for store in [&here, &there].into_iter().cycle().take(12) {
            let (store, wanted) = (store.clone(), wanted.clone());
            edits.spawn(async move { store.create_rule("root", project, &wanted).await });
        }
        let results = edits.join_all().await;
        let taken = |result: &Result<_, EditError>| matches!(result, Err(EditError::Rule(faults)) if *faults == [RuleFault::PatternTaken]);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| taken(result)).count(), 11, "{results:?}");
    }
}
