//! `casemate registry admin rule`.

use super::{BY, Desk, named, table};
use anyhow::Result;
use clap::{Args, Subcommand};
use registry_store::{RuleChange, RuleFields};
use serde_json::{Value, json};

/// Subcommands for protection rules.
#[derive(Subcommand)]
pub enum Rule {
    /// Protect the repositories of a pattern
    #[command(
        after_help = "Examples:\n  casemate registry admin rule add flightjs/flight flightjs/flight --push no_one\n  \
        casemate registry admin rule add flightjs/flight 'flightjs/flight/prod*' --push owner --delete admin\n\nThe pattern begins with the project's \
        path; `*` is any run of characters, `/` too. Of several rules that match the strictest decides."
    )]
    Add {
        /// Path or number of the project
        project: String,
        /// The pattern
        pattern: String,
        #[command(flatten)]
        levels: Levels,
    },
    /// List a project's rules
    List {
        /// Path or number of the project
        project: String,
    },
    /// Change a rule; what is not given stays
    #[command(after_help = "Example:\n  casemate registry admin rule set flightjs/flight 3 --push owner --delete ''")]
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
    /// Remove a rule
    Remove {
        /// Path or number of the project
        project: String,
        /// Number or pattern of the rule
        rule: String,
    },
}

/// Who passes.
#[derive(Args)]
pub struct Levels {
    /// The least that may push: maintainer, owner, admin or no_one; '' for no protection
    #[arg(long, value_name = "LEVEL")]
    push: Option<String>,
    /// The least that may delete, likewise
    #[arg(long, value_name = "LEVEL")]
    delete: Option<String>,
}

impl Levels {
    /// Push and delete.
    pub fn both(self) -> (Option<String>, Option<String>) {
        (self.push, self.delete)
    }
}

/// Runs a subcommand. The rule that was added or changed is printed.
pub async fn run(desk: &Desk, rule: Rule) -> Result<()> {
    let now = desk.now().await?;
    let rules = match rule {
        Rule::Add { project, pattern, levels } => {
            let (push, delete) = levels.both();
            let fields = RuleFields { pattern, push, delete };
            let project = named::project(&now, &project)?.id;
            vec![shown(&desk.store.create_rule(BY, project, &fields).await?)]
        }
        Rule::Set {
            project,
            rule,
            pattern,
            levels,
        } => {
            let (push, delete) = levels.both();
            let change = RuleChange { pattern, push, delete };
            let project = named::project(&now, &project)?;
            let rule = named::rule(project, &rule)?;
            vec![shown(&desk.store.update_rule(BY, project.id, rule, &change).await?)]
        }
        Rule::Remove { project, rule } => {
            let project = named::project(&now, &project)?;
            let rule = named::rule(project, &rule)?;
            desk.store.delete_rule(BY, project.id, rule).await?;
            return Ok(());
        }
        Rule::List { project } => named::project(&now, &project)?.rules().iter().map(shown).collect(),
    };
    table::rows(desk.json, &["id", "pattern", "push", "delete"], &rules)
}

fn shown(rule: &registry_rules::Rule) -> Value {
    json!({
        "id": rule.id, "pattern": rule.pattern.as_str(), "push": rule.push.map(|level| level.word()),
        "delete": rule.delete.map(|level| level.word()),
    })
}
