//! The TOML of a document: its text into a document that has no fault, and back.

use super::{DOCUMENT_MAX_BYTES, Document, DocumentError, Levels, MemberRoles, ProjectContent, is_member};
use registry_rules::{MinimumLevel, ProjectPath, Rule, TagRule, Visibility};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "group", skip_serializing_if = "Vec::is_empty")]
    groups: Vec<FileGroup>,
    #[serde(default, rename = "project", skip_serializing_if = "Vec::is_empty")]
    projects: Vec<FileProject>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileGroup {
    path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    members: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileProject {
    path: String,
    visibility: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    members: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<FileRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tag_rules: Vec<FileRule>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    pattern: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<String>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// Its first fault.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > DOCUMENT_MAX_BYTES {
            return Err(DocumentError::TooLong);
        }
        let file: File = toml::from_str(text).map_err(|error| DocumentError::Syntax(Box::new(error)))?;
        let mut document = Self::default();
        for group in file.groups {
            let path = path(group.path)?;
            let members = members(&path, group.members)?;
            document.refuse_twice(&path)?;
            document.groups.insert(path, members);
        }
        for project in file.projects {
            let path = path(project.path)?;
            let visibility = match &*project.visibility {
                "public" => Visibility::Public,
                "private" => Visibility::Private,
                _ => return Err(DocumentError::Visibility { path }),
            };
            let content = ProjectContent {
                visibility,
                members: members(&path, project.members)?,
                rules: rules(&path, project.rules)?,
                tag_rules: tag_rules(&path, project.tag_rules)?,
            };
            document.refuse_twice(&path)?;
            document.projects.insert(path, content);
        }
        Ok(document)
    }

    /// The document's text; the same for the same content.
    pub fn to_toml(&self) -> String {
        let words = |members: &MemberRoles| {
            let word = |(user, role): (&String, &registry_rules::Role)| (user.clone(), role.to_string());
            members.iter().map(word).collect()
        };
        let group = |(path, members)| FileGroup {
            path: ProjectPath::to_string(path),
            members: words(members),
        };
        let project = |(path, content): (&ProjectPath, &ProjectContent)| FileProject {
            path: path.to_string(),
            visibility: match content.visibility {
                Visibility::Public => "public".to_owned(),
                Visibility::Private => "private".to_owned(),
            },
            members: words(&content.members),
            rules: content
                .rules
                .iter()
                .map(|(pattern, levels)| FileRule {
                    pattern: pattern.clone(),
                    push: word(levels.push),
                    delete: word(levels.delete),
                })
                .collect(),
            tag_rules: content
                .tag_rules
                .iter()
                .map(|(pattern, levels)| FileRule {
                    pattern: pattern.clone(),
                    push: word(levels.map(|levels| levels.push)),
                    delete: word(levels.map(|levels| levels.delete)),
                })
                .collect(),
        };
        let file = File {
            groups: self.groups.iter().map(group).collect(),
            projects: self.projects.iter().map(project).collect(),
        };
        // Texts, lists and tables with text keys all have a form in TOML.
        toml::to_string(&file).unwrap_or_default()
    }

    fn refuse_twice(&self, path: &ProjectPath) -> Result<(), DocumentError> {
        if self.groups.contains_key(path) || self.projects.contains_key(path) {
            return Err(DocumentError::Twice(path.to_string()));
        }
        Ok(())
    }
}

fn path(text: String) -> Result<ProjectPath, DocumentError> {
    text.parse().map_err(|_| DocumentError::Path(text))
}

fn members(path: &ProjectPath, words: BTreeMap<String, String>) -> Result<MemberRoles, DocumentError> {
    let member = |(user, role): (String, String)| match is_member(&user, &role) {
        Some(role) => Ok((user, role)),
        None => Err(DocumentError::Member {
            path: path.clone(),
            user,
            role,
        }),
    };
    words.into_iter().map(member).collect()
}

fn rules(path: &ProjectPath, rules: Vec<FileRule>) -> Result<BTreeMap<String, Levels>, DocumentError> {
    let mut known = BTreeMap::new();
    let mut folded = HashSet::new();
    for rule in rules {
        let (push, delete) = (rule.push.as_deref(), rule.delete.as_deref());
        // Rules that were imported may have capitals; new ones with them are refused when they are made.
        let pattern = rule.pattern.to_ascii_lowercase();
        if let Some(fault) = Rule::check(path, &pattern, push, delete, false).first() {
            return Err(DocumentError::Rule {
                path: path.clone(),
                pattern: rule.pattern,
                fault: *fault,
            });
        }
        let levels = Levels {
            push: level(push),
            delete: level(delete),
        };
        if !folded.insert(pattern) {
            return Err(DocumentError::Twice(rule.pattern));
        }
        known.insert(rule.pattern, levels);
    }
    Ok(known)
}

fn tag_rules(path: &ProjectPath, rules: Vec<FileRule>) -> Result<BTreeMap<String, Option<registry_rules::TagLevels>>, DocumentError> {
    if rules.len() > TagRule::MOST {
        return Err(DocumentError::TagRules { path: path.clone() });
    }
    let mut known = BTreeMap::new();
    for rule in rules {
        let parts = TagRule::parts(&rule.pattern, rule.push.as_deref(), rule.delete.as_deref());
        let (_, levels) = parts.map_err(|faults| DocumentError::TagRule {
            path: path.clone(),
            pattern: rule.pattern.clone(),
            fault: faults.first().copied().unwrap_or(registry_rules::TagRuleFault::PatternSyntax),
        })?;
        if known.insert(rule.pattern.clone(), levels).is_some() {
            return Err(DocumentError::Twice(rule.pattern));
        }
    }
    Ok(known)
}

fn level(word: Option<&str>) -> Option<MinimumLevel> {
    word.and_then(|word| word.parse().ok())
}

fn word(level: Option<MinimumLevel>) -> Option<String> {
    level.map(|level| level.word().to_owned())
}

#[cfg(test)]
mod tests;
