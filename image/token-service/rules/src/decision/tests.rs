use super::*;
use crate::{DeployScopes, PathPattern, Rule, TagRule};
use proptest::prelude::*;
use std::collections::HashMap;

const ACTIONS: [Action; 4] = [Action::Pull, Action::Push, Action::Delete, Action::All];

fn project(visibility: Visibility, rules: Vec<Rule>, tag_rules: Vec<TagRule>) -> Projects {
    [Project::new(1, "g/p".parse().unwrap(), visibility, rules, tag_rules)]
        .into_iter()
        .collect()
}

fn rule(pattern: &str, push: Option<MinimumLevel>, delete: Option<MinimumLevel>) -> Rule {
    Rule {
        id: 7,
        pattern: PathPattern::new(pattern),
        push,
        delete,
    }
}

fn granted(projects: &Projects, principal: &Principal<'_>, scope: &str) -> Result<String, &'static str> {
    match decide(projects, principal, &Scopes::parse([scope])).result {
        Ok(access) => Ok(access.iter().map(|a| a.actions.to_string()).collect::<Vec<_>>().join(" ")),
        Err(refusal) => Err(refusal.message()),
    }
}

/// The peer's table, role by role and action by action.
#[test]
fn roles_give_what_the_table_says() {
    let every = "repository:g/p:pull,push,delete,*";
    let private = project(Visibility::Private, Vec::new(), Vec::new());
    let public = project(Visibility::Public, Vec::new(), Vec::new());
    let table = [
        (None, "", "pull"),
        (Some(Role::Guest), "", "pull"),
        (Some(Role::Reporter), "pull", "pull"),
        (Some(Role::Developer), "pull,push", "pull,push"),
        (Some(Role::Maintainer), "pull,push,delete,*", "pull,push,delete,*"),
        (Some(Role::Owner), "pull,push,delete,*", "pull,push,delete,*"),
    ];
    for (role, in_private, in_public) in table {
        let roles: HashMap<_, _> = role.map(|role| (1, role)).into_iter().collect();
        let user = Principal::user(&roles, false);
        assert_eq!(granted(&private, &user, every).unwrap(), in_private, "{role:?}");
        assert_eq!(granted(&public, &user, every).unwrap(), in_public, "{role:?}");
        let own = Principal::Job {
            roles: &roles,
            administrator: false,
            project: 1,
        };
        assert_eq!(granted(&private, &own, every).unwrap(), "pull,push,delete", "{role:?}");
        let other = Principal::Job {
            roles: &roles,
            administrator: false,
            project: 2,
        };
        assert_eq!(
            granted(&private, &other, every).unwrap(),
            in_private.split(',').next().unwrap(),
            "{role:?}"
        );
    }
    let nobody = HashMap::new();
    assert_eq!(
        granted(&private, &Principal::user(&nobody, true), every).unwrap(),
        "pull,push,delete,*"
    );
    assert_eq!(granted(&private, &Principal::Anonymous, every).unwrap(), "");
    assert_eq!(granted(&public, &Principal::Anonymous, every).unwrap(), "pull");
    for (project, read, write, expected) in [
        (1, true, true, Ok("pull,push")),
        (1, true, false, Ok("pull")),
        (1, false, true, Ok("push")),
        (2, true, true, Ok("")),
        (1, false, false, Err("access forbidden")),
    ] {
        let token = Principal::DeployToken {
            project,
            scopes: DeployScopes { read, write },
        };
        assert_eq!(granted(&private, &token, every).as_deref().map_err(|e| *e), expected);
    }
}

#[test]
fn a_login_is_an_empty_grant_and_anonymous_has_none() {
    let projects = project(Visibility::Public, Vec::new(), Vec::new());
    let nobody = HashMap::new();
    let none = Scopes::default();
    assert_eq!(decide(&projects, &Principal::user(&nobody, false), &none).result, Ok(Vec::new()));
    assert_eq!(decide(&projects, &Principal::Anonymous, &none).result, Err(Refusal::Forbidden));
    assert_eq!(decide(&projects, &Principal::Powerless, &none).result, Err(Refusal::Forbidden));
    assert_eq!(
        granted(&projects, &Principal::Powerless, "repository:g/p:pull"),
        Err("access forbidden")
    );
}

#[test]
fn a_job_of_a_reporter_has_a_defined_answer() {
    let reporter = HashMap::from([(1, Role::Reporter)]);
    let job = Principal::Job {
        administrator: false,
        roles: &reporter,
        project: 1,
    };
    let open = project(Visibility::Private, Vec::new(), Vec::new());
    let closed = project(
        Visibility::Private,
        vec![rule("g/p", Some(MinimumLevel::Maintainer), None)],
        Vec::new(),
    );
    assert_eq!(granted(&open, &job, "repository:g/p:push").unwrap(), "push");
    assert_eq!(
        granted(&closed, &job, "repository:g/p:push"),
        Err("container protected; you are not allowed to push new package")
    );
}

#[test]
fn push_is_judged_before_delete_and_scopes_in_order() {
    let rules = vec![
        rule("g/p/a", Some(MinimumLevel::Admin), Some(MinimumLevel::Admin)),
        Rule {
            id: 8,
            ..rule("g/p/b", None, Some(MinimumLevel::NoOne))
        },
    ];
    let projects = project(Visibility::Private, rules, Vec::new());
    let owner = HashMap::from([(1, Role::Owner)]);
    let owner = Principal::user(&owner, false);
    let refused = |scope: &str| match decide(&projects, &owner, &Scopes::parse([scope])).result {
        Err(Refusal::Protected { action, rule, .. }) => (action, rule),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("repository:g/p/a:delete,push"), (Action::Push, 7));
    assert_eq!(refused("repository:g/p/a:delete"), (Action::Delete, 7));
    assert_eq!(refused("repository:g/p/b:* repository:g/p/a:push"), (Action::Delete, 8));
    assert_eq!(granted(&projects, &owner, "repository:g/p/b:pull,push").unwrap(), "pull,push");
}

#[test]
fn a_personal_token_takes_away_and_gives_nothing() {
    let owner = HashMap::from([(1, Role::Owner)]);
    let projects = project(Visibility::Private, Vec::new(), Vec::new());
    let with = |read, write| Principal::User {
        roles: &owner,
        administrator: true,
        limits: DeployScopes { read, write },
    };
    assert_eq!(
        granted(&projects, &with(true, false), "repository:g/p:pull,push,*").unwrap(),
        "pull"
    );
    assert_eq!(granted(&projects, &with(true, false), "registry:catalog:*").unwrap(), "");
    assert_eq!(granted(&projects, &with(true, true), "registry:catalog:*").unwrap(), "*");
    assert_eq!(granted(&projects, &with(true, true), "registry:catalog:*,pull").unwrap(), "");
    assert_eq!(
        granted(&projects, &with(false, false), "repository:g/p:pull"),
        Err("access forbidden")
    );
}

#[test]
fn tag_rules_go_into_the_token() {
    let tag = |pattern: &str, levels: Option<(&str, &str)>| {
        let (pattern, levels) = TagRule::parts(pattern, levels.map(|l| l.0), levels.map(|l| l.1)).unwrap();
        TagRule { id: 1, pattern, levels }
    };
    let rules = vec![
        tag("v.*", Some(("owner", "no_one"))),
        tag("edge", Some(("maintainer", "maintainer"))),
        tag("fixed", None),
    ];
    let projects = project(Visibility::Private, Vec::new(), rules);
    let tags = |role: Role, administrator: bool, scope: &str| {
        let roles = HashMap::from([(1, role)]);
        let decision = decide(&projects, &Principal::user(&roles, administrator), &Scopes::parse([scope]));
        decision.result.unwrap().remove(0).tags
    };
    let fixed = Some(vec!["fixed".to_owned()]);
    let denied = tags(Role::Maintainer, false, "repository:g/p:pull,push,delete");
    assert_eq!(
        denied.deny.unwrap(),
        [(Action::Push, vec!["v.*".to_owned()]), (Action::Delete, vec!["v.*".to_owned()])]
    );
    assert_eq!(denied.immutable, fixed);
    let administrator = tags(Role::Guest, true, "repository:g/p:*");
    assert_eq!(
        administrator.deny.unwrap(),
        [(Action::Push, Vec::new()), (Action::Delete, Vec::new())]
    );
    assert_eq!(administrator.immutable, fixed);
    assert_eq!(tags(Role::Owner, false, "repository:g/p:pull"), TagDenials::default());
}

fn level() -> impl Strategy<Value = Option<MinimumLevel>> {
    proptest::option::of(proptest::sample::select(MinimumLevel::ALL.to_vec()))
}

proptest! {
    /// Rules only take away: whatever they are, nothing is granted that the role alone would not grant, pull is never affected,
    /// and one rule more never grants more.
    #[test]
    fn rules_only_take_away(
        rules in proptest::collection::vec(("g/p[*ab/]{0,3}", level(), level()), 0..6),
        role in proptest::option::of(proptest::sample::select(Role::ALL.to_vec())),
        administrator: bool,
        actions in proptest::sample::subsequence(ACTIONS.to_vec(), 1..=4),
    ) {
        let roles: HashMap<_, _> = role.map(|role| (1, role)).into_iter().collect();
        let principal = Principal::user(&roles, administrator);
        let words: Vec<_> = actions.iter().map(|action| action.word()).collect();
        let scope = format!("repository:g/p/a:{}", words.join(","));
        let all: Vec<Rule> = rules.iter().map(|(pattern, push, delete)| rule(pattern, *push, *delete)).collect();
        let unprotected = granted(&project(Visibility::Private, Vec::new(), Vec::new()), &principal, &scope);
        let mut before = unprotected.clone();
        for n in 0..=all.len() {
            let now = granted(&project(Visibility::Private, all[..n].to_vec(), Vec::new()), &principal, &scope);
            prop_assert!(now == before || now.is_err());
            prop_assert!(before.is_ok() || now.is_err());
            if actions == [Action::Pull] {
                prop_assert_eq!(&now, &unprotected);
            }
            before = now;
        }
    }
}
