//! `/projects/{id}/rules` and `/projects/{id}/tag-rules`: the form for a rule, and the question before it is deleted.

use super::answer::{edit, form_page, not_found, see};
use super::confirm::{Question, ask};
use super::fields::Fields;
use super::form::Submission;
use super::visitor::{Visitor, number};
use crate::answer::Stop;
use crate::service::Shared;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use registry_pages::{Field, RuleForm, RuleKind, Section};
use registry_rules::{MinimumLevel, Project, RuleFault, RuleId, TagRuleFault};
use registry_store::{EditError, RuleChange, RuleFields, Store};

const DELETE: Question = Question {
    question: "Delete this protection rule?",
    consequence: "From then on, roles and the rules that are left decide who may push to these repositories and delete from them.",
    button: "Delete the rule",
};
const DELETE_TAG: Question = Question {
    question: "Delete this tag rule?",
    consequence: "From then on, whoever may push may overwrite these tags.",
    button: "Delete the rule",
};

pub(super) fn router() -> Router<Shared> {
    use RuleKind::{Repository, Tag};
    Router::new()
        .merge(of_kind("/projects/{id}/rules", Repository))
        .merge(of_kind("/projects/{id}/tag-rules", Tag))
}

/// The same four pages for both kinds.
fn of_kind(base: &str, kind: RuleKind) -> Router<Shared> {
    Router::new()
        .route(base, post(move |id, form| create(kind, id, form)))
        .route(&format!("{base}/new"), get(move |visitor, id| blank(kind, visitor, id)))
        .route(
            &format!("{base}/{{rule}}"),
            get(move |visitor, ids| show(kind, visitor, ids)).post(move |ids, form| change(kind, ids, form)),
        )
        .route(
            &format!("{base}/{{rule}}/delete"),
            get(move |visitor, ids| ask_delete(kind, visitor, ids)).post(move |ids, form| delete(kind, ids, form)),
        )
}

/// What a form holds: a pattern and two levels.
#[derive(Default)]
struct Typed {
    pattern: Field,
    push: Field,
    delete: Field,
}

impl Typed {
    fn read(fields: &Fields) -> Self {
        Self {
            pattern: Field::new(fields.trimmed("pattern")),
            push: Field::new(fields.get("push")),
            delete: Field::new(fields.get("delete")),
        }
    }

    fn fields(&self) -> RuleFields {
        RuleFields {
            pattern: self.pattern.value.clone(),
            push: Some(self.push.value.clone()),
            delete: Some(self.delete.value.clone()),
        }
    }

    fn change(&self) -> RuleChange {
        RuleChange {
            pattern: Some(self.pattern.value.clone()),
            push: Some(self.push.value.clone()),
            delete: Some(self.delete.value.clone()),
        }
    }

    /// The faults, each beside the field that it is about; the failure itself where it is about none.
    fn judged(mut self, failure: EditError) -> Result<Self, EditError> {
        match &failure {
            EditError::Rule(faults) => {
                for fault in faults {
                    let levels = matches!(fault, RuleFault::LevelsMissing | RuleFault::LevelUnknown);
                    let field = if levels { &mut self.push } else { &mut self.pattern };
                    field.faults.push(fault.to_string());
                }
            }
            EditError::TagRule(faults) => {
                for fault in faults {
                    let levels = matches!(fault, TagRuleFault::OneLevel | TagRuleFault::LevelUnknown);
                    let field = if levels { &mut self.push } else { &mut self.pattern };
                    field.faults.push(fault.to_string());
                }
            }
            EditError::Taken(_) | EditError::Limit(_) | EditError::Invalid(_) => self.pattern.faults.push(failure.to_string()),
            EditError::Store(_) | EditError::NotFound(_) => return Err(failure),
        }
        Ok(self)
    }

    fn wrong(&self) -> bool {
        [&self.pattern, &self.push, &self.delete]
            .into_iter()
            .any(|field| !field.faults.is_empty())
    }
}

fn page(visitor: &Visitor, kind: RuleKind, project: &Project, rule: Option<RuleId>, typed: Typed) -> Response {
    let wrong = typed.wrong();
    let view = RuleForm {
        shell: visitor.shell(Section::Projects, None),
        kind,
        project: project.id,
        path: project.path.as_str().to_owned(),
        rule,
        pattern: typed.pattern,
        push: typed.push,
        delete: typed.delete,
    };
    form_page(wrong, &view)
}

/// The rule with this number as a form.
fn known(project: &Project, kind: RuleKind, id: RuleId) -> Result<Typed, Stop> {
    let level = |level: Option<MinimumLevel>| Field::new(level.map_or("", MinimumLevel::word));
    let typed = |pattern: &str, push, delete| Typed {
        pattern: Field::new(pattern),
        push: level(push),
        delete: level(delete),
    };
    let found = match kind {
        RuleKind::Repository => {
            let rule = project.rules().iter().find(|rule| rule.id == id);
            rule.map(|rule| typed(rule.pattern.as_str(), rule.push, rule.delete))
        }
        RuleKind::Tag => {
            let rule = project.tag_rules().iter().find(|rule| rule.id == id);
            rule.map(|rule| {
                let levels = rule.levels;
                typed(rule.pattern.as_str(), levels.map(|both| both.push), levels.map(|both| both.delete))
            })
        }
    };
    found.ok_or_else(not_found)
}

async fn blank(kind: RuleKind, visitor: Visitor, Path(id): Path<String>) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let typed = match kind {
        RuleKind::Repository => Typed {
            pattern: Field::new(project.path.as_str()),
            push: Field::new(MinimumLevel::Maintainer.word()),
            delete: Field::default(),
        },
        RuleKind::Tag => Typed::default(),
    };
    Ok(page(&visitor, kind, project, None, typed))
}

async fn create(kind: RuleKind, Path(id): Path<String>, Submission { visitor, fields }: Submission) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let typed = Typed::read(&fields);
    let (store, by): (&Store, _) = (&visitor.service.store, &visitor.caller.name);
    let created = match kind {
        RuleKind::Repository => store.create_rule(by, project.id, &typed.fields()).await.map(drop),
        RuleKind::Tag => store.create_tag_rule(by, project.id, &typed.fields()).await.map(drop),
    };
    saved(&visitor, kind, project, None, typed, created)
}

async fn show(kind: RuleKind, visitor: Visitor, Path((id, rule)): Path<(String, String)>) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let rule = number(&rule)?;
    let typed = known(project, kind, rule)?;
    Ok(page(&visitor, kind, project, Some(rule), typed))
}

async fn change(
    kind: RuleKind,
    Path((id, rule)): Path<(String, String)>,
    Submission { visitor, fields }: Submission,
) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let rule = number(&rule)?;
    let typed = Typed::read(&fields);
    let (store, by): (&Store, _) = (&visitor.service.store, &visitor.caller.name);
    let changed = match kind {
        RuleKind::Repository => store.update_rule(by, project.id, rule, &typed.change()).await.map(drop),
        RuleKind::Tag => store.update_tag_rule(by, project.id, rule, &typed.change()).await.map(drop),
    };
    saved(&visitor, kind, project, Some(rule), typed, changed)
}

/// The project's page where the edit was made, else the form with what is wrong.
fn saved(
    visitor: &Visitor,
    kind: RuleKind,
    project: &Project,
    rule: Option<RuleId>,
    typed: Typed,
    made: Result<(), EditError>,
) -> Result<Response, Stop> {
    let failure = match made {
        Ok(()) => return Ok(see(&format!("/projects/{}?done=rule-saved", project.id))),
        Err(failure) => failure,
    };
    let typed = typed.judged(failure).map_err(|failure| edit(&visitor.service, &failure))?;
    Ok(page(visitor, kind, project, rule, typed))
}

async fn ask_delete(kind: RuleKind, visitor: Visitor, Path((id, rule)): Path<(String, String)>) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let rule = number(&rule)?;
    let subject = known(project, kind, rule)?.pattern.value;
    let (segment, question) = match kind {
        RuleKind::Repository => ("rules", &DELETE),
        RuleKind::Tag => ("tag-rules", &DELETE_TAG),
    };
    let back = format!("/projects/{}", project.id);
    let action = format!("{back}/{segment}/{rule}/delete");
    Ok(ask(&visitor, Section::Projects, question, &subject, action, back))
}

async fn delete(
    kind: RuleKind,
    Path((id, rule)): Path<(String, String)>,
    Submission { visitor, .. }: Submission,
) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let rule = number(&rule)?;
    let (store, by): (&Store, _) = (&visitor.service.store, &visitor.caller.name);
    let deleted = match kind {
        RuleKind::Repository => store.delete_rule(by, project.id, rule).await,
        RuleKind::Tag => store.delete_tag_rule(by, project.id, rule).await,
    };
    deleted.map_err(|failure| edit(&visitor.service, &failure))?;
    Ok(see(&format!("/projects/{}?done=rule-deleted", project.id)))
}
