//! `/what-if`: the decision on a request that nobody sent, by the same call as for those that are.

use super::answer::form_page;
use super::fields::Fields;
use super::visitor::Visitor;
use crate::answer::Stop;
use crate::endpoint::decide_for;
use crate::login::Caller;
use crate::service::Shared;
use axum::Router;
use axum::extract::RawQuery;
use axum::response::Response;
use axum::routing::get;
use registry_pages::{Field, Section, Step, Verdict, WhatIf};
use registry_rules::{Action, Decision, DeployScopes, MinimumLevel, Project, Refusal, RepositoryName, Role, Rule, Scopes, Visibility};
use registry_store::User;

pub(super) fn router() -> Router<Shared> {
    Router::new().route("/what-if", get(show))
}

/// A question that can be asked.
struct Question<'a> {
    user: Option<&'a User>,
    repository: RepositoryName,
    action: Action,
}

async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let asked = fields.ticked("ask");
    let user = if asked { fields.trimmed("user") } else { &visitor.caller.name };
    let action = if asked { fields.get("action") } else { "push" };
    let mut view = WhatIf {
        shell: visitor.shell(Section::WhatIf, None),
        user: Field::new(user),
        repository: Field::new(fields.trimmed("repository")),
        action: Field::new(action),
        verdict: None,
    };
    if asked && let Some(question) = question(&visitor, &mut view) {
        view.verdict = Some(answer(&visitor, &question));
    }
    let wrong = asked && view.verdict.is_none();
    Ok(form_page(wrong, &view))
}

/// What is asked; none, with faults in the form, where it cannot be.
fn question<'a>(visitor: &'a Visitor, view: &mut WhatIf) -> Option<Question<'a>> {
    let snapshot = &visitor.snapshot;
    let repository = view.repository.value.parse::<RepositoryName>();
    if let Err(fault) = &repository {
        view.repository.faults.push(format!("This is no repository: {fault}."));
    }
    let action = Action::from_word(&view.action.value);
    if action.is_none() {
        view.action.faults.push("Choose an action.".to_owned());
    }
    let user = match view.user.value.as_str() {
        "" => Some(None),
        name => snapshot.user(name).map(Some),
    };
    let other = user.flatten().is_some_and(|user| user.id != visitor.user());
    let project = repository.as_ref().ok().and_then(|name| snapshot.projects.of(name));
    let maintains = visitor.administrator || project.is_some_and(|project| visitor.authority(project).edits());
    if user.is_none() || (other && !maintains) {
        // The same for a name that nobody has, so that names cannot be tried here.
        let fault = if maintains {
            "There is no user with this name."
        } else {
            "You may ask for yourself, for nobody, and, where you maintain the project, for every user."
        };
        view.user.faults.push(fault.to_owned());
        return None;
    }
    Some(Question {
        user: user?,
        repository: repository.ok()?,
        action: action?,
    })
}

fn answer(visitor: &Visitor, question: &Question<'_>) -> Verdict {
    let snapshot = &visitor.snapshot;
    let caller = match question.user {
        Some(user) => Caller::of_user(user, DeployScopes { read: true, write: true }, true),
        None => Caller::anonymous(),
    };
    let scope = format!("repository:{}:{}", question.repository, question.action.word());
    let decision = decide_for(snapshot, &caller, &Scopes::parse([scope.as_str()]));
    let project = snapshot.projects.of(&question.repository);
    let project = project.filter(|project| visitor.authority(project).sees());
    let granted = matches!(&decision.result, Ok(access) if access.iter().any(|access| access.actions.has(question.action)));
    Verdict {
        granted,
        headline: headline(question, granted),
        message: decision.result.as_ref().err().map(|refusal| refusal.message().to_owned()),
        steps: steps(visitor, question, &decision, project),
    }
}

fn headline(question: &Question<'_>, granted: bool) -> String {
    let who = question.user.map_or("A client without a login", |user| &user.name);
    let may = if granted { "may" } else { "may not" };
    match question.action {
        Action::Pull => format!("{who} {may} pull {}.", question.repository),
        Action::Push => format!("{who} {may} push {}.", question.repository),
        Action::Delete => format!("{who} {may} delete from {}.", question.repository),
        Action::All => format!("{who} {may} do everything with {}.", question.repository),
    }
}

fn steps(visitor: &Visitor, question: &Question<'_>, decision: &Decision, project: Option<&Project>) -> Vec<Step> {
    let step = |what, passed, found: String| Step {
        what,
        found,
        passed,
        rule: None,
    };
    let login = match question.user {
        None => "Nobody is signed in.".to_owned(),
        Some(user) if user.blocked => format!("{} is blocked.", user.name),
        Some(user) => format!("{} is a user.", user.name),
    };
    let Some(outcome) = decision.outcomes.first() else {
        return vec![step("Login", false, login)];
    };
    let mut steps = vec![step("Login", true, login)];
    let Some(project) = project else {
        let found = "No project that you may see has this repository, and without a project there is no access.";
        steps.push(step("Project", false, found.to_owned()));
        return steps;
    };
    let visibility = if project.visibility == Visibility::Public {
        "public"
    } else {
        "private"
    };
    steps.push(step(
        "Project",
        true,
        format!("It belongs to {}, which is {visibility}.", project.path),
    ));
    let by_role = outcome.allowed.has(question.action);
    steps.push(step("Role", by_role, role_text(question, outcome.role, by_role)));
    if !by_role {
        return steps;
    }
    if let Err(Refusal::Protected { action, rule, level, .. }) = &decision.result {
        let found = format!("A rule lets {} {}:", level_text(*level), verb(*action));
        let rule = project.rules().iter().find(|known| known.id == *rule);
        steps.push(Step {
            rule: rule.map(|rule| link_to(visitor, project, rule)),
            ..step("Protection rule", false, found)
        });
        return steps;
    }
    for action in [Action::Push, Action::Delete] {
        if question.action != action && question.action != Action::All {
            continue;
        }
        let strictest = project.strictest(&question.repository, action);
        let found = match strictest {
            Some((level, _)) => format!(
                "The strictest rule lets {} {}, and that is enough:",
                level_text(level),
                verb(action)
            ),
            None => format!("No rule says who may {}.", verb(action)),
        };
        steps.push(Step {
            rule: strictest.map(|(_, rule)| link_to(visitor, project, rule)),
            ..step("Protection rule", true, found)
        });
    }
    steps
}

/// The rule's own page where the visitor may change it, else its project.
fn link_to(visitor: &Visitor, project: &Project, rule: &Rule) -> (String, String) {
    let path = if visitor.authority(project).edits() {
        format!("/projects/{}/rules/{}", project.id, rule.id)
    } else {
        format!("/projects/{}", project.id)
    };
    (path, rule.pattern.as_str().to_owned())
}

fn role_text(question: &Question<'_>, role: Option<Role>, enough: bool) -> String {
    let is = match (question.user, role) {
        (None, _) => "Without a login there is no role".to_owned(),
        (Some(user), _) if user.administrator => format!("{} is an administrator", user.name),
        (Some(user), Some(role)) => format!("{} is {} here, by the project or a group above it", user.name, role.word()),
        (Some(user), None) => format!("{} has no role here", user.name),
    };
    let verb = verb(question.action);
    if enough {
        format!("{is}; that is enough to {verb}.")
    } else {
        let needs = match question.action {
            Action::Pull => "reporters and above pull from a private project",
            Action::Push => "developers and above push",
            Action::Delete | Action::All => "maintainers and above delete",
        };
        format!("{is}; {needs}.")
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
        Action::All => "do everything",
    }
}

fn level_text(level: MinimumLevel) -> &'static str {
    match level {
        MinimumLevel::Maintainer => "maintainers and above",
        MinimumLevel::Owner => "owners and above",
        MinimumLevel::Admin => "administrators alone",
        MinimumLevel::NoOne => "nobody",
    }
}
