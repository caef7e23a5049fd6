//! `casemate registry admin tag-rule`.

use super::rule::Levels;
use super::{BY, Desk, named, table};
use anyhow::Result;
use clap::Subcommand;
use registry_store::{RuleChange, RuleFields};
use serde_json::{Value, json};

/// Subcommands for tag rules.
#[derive(Subcommand)]
pub enum TagRule {
    /// Protect the tags that a regular expression matches
    #[command(
        after_help = "Examples:\n  casemate registry admin tag-rule add flightjs/flight '^v[0-9]' --push maintainer --delete owner\n  \
        casemate registry admin tag-rule add flightjs/flight '^release-'       # without levels: nobody changes such a tag\n\n\
        Tokens carry what is forbidden, and the registry enforces it: GitLab's does, distribution's does not. A project has at most five."
    )]
    Add {
        /// Path or number of the project
        project: String,
        /// The expression (RE2)
        pattern: String,
        #[command(flatten)]
        levels: Levels,
    },
    /// List a project's tag rules
    List {
        /// Path or number of the project
        project: String,
    },
    /// Change a tag rule; what is not given stays
    Set {
        /// Path or number of the project
        project: String,
        /// Number or pattern of the rule
        rule: String,
        /// Another pattern
        #[arg(long)]
        pattern: Option<String>,
        #[command(flatten)]
        levels: Levels,
    },
    /// Remove a tag rule
    Remove {
        /// Path or number of the project
        project: String,
        /// Number or pattern of the rule
        rule: String,
    },
}

/// Runs a subcommand. The rule that was added or changed is printed.
pub async fn run(desk: &Desk, rule: TagRule) -> Result<()> {
    let now = desk.now().await?;
    let rules = match rule {
        TagRule::Add { project, pattern, levels } => {
            let (push, delete) = levels.both();
            let fields = RuleFields { pattern, push, delete };
            let project = named::project(&now, &project)?.id;
            vec![shown(&desk.store.create_tag_rule(BY, project, &fields).await?)]
        }
        TagRule::Set {
            project,
            rule,
            pattern,
            levels,
        } => {
            let (push, delete) = levels.both();
            let change = RuleChange { pattern, push, delete };
            let project = named::project(&now, &project)?;
            let rule = named::tag_rule(project, &rule)?;
            vec![shown(&desk.store.update_tag_rule(BY, project.id, rule, &change).await?)]
        }
        TagRule::Remove { project, rule } => {
            let project = named::project(&now, &project)?;
            let rule = named::tag_rule(project, &rule)?;
            desk.store.delete_tag_rule(BY, project.id, rule).await?;
            return Ok(());
        }
        TagRule::List { project } => named::project(&now, &project)?.tag_rules().iter().map(shown).collect(),
    };
    table::rows(desk.json, &["id", "pattern", "push", "delete"], &rules)
}

fn shown(rule: &registry_rules::TagRule) -> Value {
    json!({
        "id": rule.id, "pattern": rule.pattern.as_str(), "push": rule.levels.map(|levels| levels.push.word()),
        "delete": rule.levels.map(|levels| levels.delete.word()),
    })
}
