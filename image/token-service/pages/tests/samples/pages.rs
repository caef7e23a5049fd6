//! A sample of every page, with one text wherever a page shows what somebody else wrote.

use registry_pages::*;
use registry_rules::{MinimumLevel, Role, Visibility};

/// A text that would break out of every context of HTML.
pub const HOSTILE: &str = "<b x='y'>\"z\"&amp;</b>";

fn shell(section: Section, text: &str) -> Shell {
    Shell {
        user: Some(SignedIn {
            name: text.to_owned(),
            administrator: true,
            audits: true,
            form_key: "the-form-key".to_owned(),
        }),
        section,
        notice: Some("The rule was added."),
    }
}

fn person(text: &str, role: &'static str) -> Person {
    Person {
        name: text.to_owned(),
        role,
    }
}

fn people(text: &str) -> People {
    People {
        named: vec![person(text, "owner"), person(text, "administrator"), person(text, "deploy token")],
        more: 7,
    }
}

fn token_row(text: &str, ended: bool) -> TokenRow {
    TokenRow {
        id: 3,
        name: text.to_owned(),
        login: text.to_owned(),
        scopes: "pull, push".to_owned(),
        expires: "2026-12-31".to_owned(),
        ended,
    }
}

fn field(text: &str) -> Field {
    Field::new(text).wrong(text)
}

fn token_form(text: &str) -> TokenForm {
    TokenForm {
        name: field(text),
        login: field(text),
        read: true,
        write: false,
        api: true,
        scopes: field(text),
        expires: field(text),
    }
}

fn project(text: &str) -> ProjectPage {
    let rule = |id, push, delete| RuleRow {
        id,
        pattern: text.to_owned(),
        push,
        delete,
        may_push: people(text),
        may_delete: People::default(),
    };
    let tag_rule = |id, levels| TagRuleRow {
        id,
        pattern: text.to_owned(),
        levels,
    };
    let member = |user, group: Option<&str>, blocked| MemberRow {
        user,
        name: text.to_owned(),
        role: Role::Developer,
        group: group.map(str::to_owned),
        blocked,
    };
    ProjectPage {
        shell: shell(Section::Projects, text),
        id: 5,
        path: text.to_owned(),
        visibility: Visibility::Private,
        role: Some(Role::Owner),
        belongs: true,
        may_edit: true,
        owns: true,
        rules: vec![
            rule(1, Some(MinimumLevel::Maintainer), None),
            rule(2, Some(MinimumLevel::NoOne), Some(MinimumLevel::Admin)),
        ],
        rules_found: 102,
        earlier: Some("/projects/5?rules=0".to_owned()),
        later: Some("/projects/5?rules=100".to_owned()),
        others_push: people(text),
        others_delete: people(text),
        tag_rules: vec![tag_rule(1, None), tag_rule(2, Some((MinimumLevel::Owner, MinimumLevel::NoOne)))],
        tag_rules_full: false,
        members: vec![member(7, None, true), member(8, Some(text), false)],
        member_form: MemberForm {
            user: field(text),
            role: Field::new("developer"),
        },
        tokens: vec![token_row(text, false), token_row(text, true)],
        token_form: token_form(text),
    }
}

/// The page with a token's secret.
pub fn new_token(text: &str) -> NewToken {
    NewToken {
        shell: shell(Section::Tokens, text),
        name: text.to_owned(),
        login: text.to_owned(),
        secret: format!("cmd_{text}"),
        back: "/tokens".to_owned(),
    }
}

fn rule_form(text: &str, kind: RuleKind, rule: Option<i64>) -> RuleForm {
    RuleForm {
        shell: shell(Section::Projects, text),
        kind,
        project: 5,
        path: text.to_owned(),
        rule,
        pattern: field(text),
        push: field("owner"),
        delete: Field::default(),
    }
}

fn what_if(text: &str) -> WhatIf {
    let step = |what, passed, rule: Option<&str>| Step {
        what,
        found: text.to_owned(),
        passed,
        rule: rule.map(|pattern| ("/projects/5#rule-1".to_owned(), pattern.to_owned())),
    };
    WhatIf {
        shell: shell(Section::WhatIf, text),
        user: field(text),
        repository: field(text),
        action: Field::new("push"),
        verdict: Some(Verdict {
            granted: false,
            headline: text.to_owned(),
            message: Some("container protected; you are not allowed to push new package".to_owned()),
            steps: vec![step("Role", true, None), step("Protection rule", false, Some(text))],
        }),
    }
}

fn audit(text: &str) -> Audit {
    Audit {
        shell: shell(Section::Audit, text),
        query: AuditQuery {
            actor: field(text),
            action: field(text),
            subject: field(text),
            project: field(text),
            outcome: Field::new("refused"),
            since: field("2026-11-30"),
            until: Field::default(),
        },
        rows: vec![AuditRow {
            time: "2026-11-30 19:55:02".to_owned(),
            machine_time: "2026-11-30T19:55:02Z".to_owned(),
            actor: text.to_owned(),
            address: text.to_owned(),
            action: text.to_owned(),
            subject: text.to_owned(),
            outcome: "refused",
            detail: text.to_owned(),
        }],
        newest: Some("/audit".to_owned()),
        older: Some("/audit?before=5".to_owned()),
        own_projects: Some(vec![text.to_owned()]),
    }
}

fn projects(text: &str) -> ProjectsPage {
    ProjectsPage {
        shell: shell(Section::Projects, text),
        search: text.to_owned(),
        rows: vec![ProjectRow {
            id: 5,
            path: text.to_owned(),
            visibility: Visibility::Public,
            rules: 3,
            role: None,
        }],
        found: 1,
        earlier: None,
        later: Some("/projects?page=1".to_owned()),
        may_create: true,
    }
}

/// Every page by its name.
pub fn pages(text: &str) -> Vec<(&'static str, String)> {
    let new_project = NewProject {
        shell: shell(Section::Projects, text),
        path: field(text),
        visibility: Field::new("private"),
    };
    let confirm = Confirm {
        shell: shell(Section::Projects, text),
        question: "Delete this rule?",
        subject: text.to_owned(),
        consequence: "Whoever may push by role may push again.",
        action: "/projects/5/rules/1/delete".to_owned(),
        button: "Delete the rule",
        back: "/projects/5".to_owned(),
    };
    let sign_in = SignIn {
        shell: Shell::default(),
        name: Field::new(text),
        next: text.to_owned(),
        refused: Some("The name or the password is wrong."),
    };
    let problem = Problem {
        shell: Shell::default(),
        status: 404,
        title: "There is no such page",
        advice: text.to_owned(),
    };
    let tokens = TokensPage {
        shell: shell(Section::Tokens, text),
        tokens: vec![token_row(text, true)],
        token_form: TokenForm {
            login: Field::default(), // personal tokens log in with their user's name
            ..token_form(text)
        },
    };
    let empty = ProjectsPage {
        rows: Vec::new(),
        ..projects(text)
    };
    let rendered = [
        ("sign-in", sign_in.render()),
        ("projects", projects(text).render()),
        ("projects-none", empty.render()),
        ("new-project", new_project.render()),
        ("project", project(text).render()),
        ("rule-wrong", rule_form(text, RuleKind::Repository, None).render()),
        ("tag-rule", rule_form(text, RuleKind::Tag, Some(4)).render()),
        ("confirm", confirm.render()),
        ("tokens", tokens.render()),
        ("new-token", new_token(text).render()),
        ("what-if", what_if(text).render()),
        ("audit", audit(text).render()),
        ("problem", problem.render()),
    ];
    rendered.into_iter().map(|(name, html)| (name, html.unwrap())).collect()
}
