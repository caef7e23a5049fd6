//! One field of a form: what was typed into it, and what is wrong with that.

use registry_rules::{MinimumLevel, Role};

/// A field of a form.
#[derive(Clone, Debug, Default)]
pub struct Field {
    /// What was typed or chosen.
    pub value: String,
    /// What is wrong with it, a sentence each.
    pub faults: Vec<String>,
}

/// One entry of a list to choose from.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// What the form sends.
    pub value: &'static str,
    /// What the reader sees.
    pub label: &'static str,
}

impl Field {
    /// A field with this value and no fault.
    pub fn new(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            faults: Vec::new(),
        }
    }

    /// The same with one more fault.
    pub fn wrong(mut self, fault: impl Into<String>) -> Self {
        self.faults.push(fault.into());
        self
    }
}

/// A fault and the field that it belongs to, for the summary above a form.
pub(crate) struct Fault<'a> {
    pub(crate) field: &'static str,
    pub(crate) text: &'a str,
}

pub(crate) fn faults<'a>(fields: &[(&'static str, &'a Field)]) -> Vec<Fault<'a>> {
    fields
        .iter()
        .flat_map(|(name, field)| field.faults.iter().map(|text| Fault { field: name, text }))
        .collect()
}

/// The levels of a protection rule, and none.
pub fn level_choices() -> [Choice; 5] {
    let level = |level: MinimumLevel, label| Choice {
        value: level.word(),
        label,
    };
    [
        Choice {
            value: "",
            label: "Not protected",
        },
        level(MinimumLevel::Maintainer, "Maintainers and owners"),
        level(MinimumLevel::Owner, "Owners"),
        level(MinimumLevel::Admin, "Administrators only"),
        level(MinimumLevel::NoOne, "Nobody"),
    ]
}

/// The roles of members.
pub fn role_choices() -> [Choice; 5] {
    Role::ALL.map(|role| Choice {
        value: role.word(),
        label: match role {
            Role::Guest => "Guest: sees the project",
            Role::Reporter => "Reporter: pulls",
            Role::Developer => "Developer: pushes",
            Role::Maintainer => "Maintainer: deletes, edits rules",
            Role::Owner => "Owner",
        },
    })
}

/// Who may pull without being a member.
pub fn visibility_choices() -> [Choice; 2] {
    [
        Choice {
            value: "private",
            label: "Private: members pull",
        },
        Choice {
            value: "public",
            label: "Public: anybody pulls",
        },
    ]
}
