//! One project: its rules with those who may push and delete now, its tag rules, members and tokens.

use crate::field::{Fault, faults};
use crate::{Choice, Field, Shell, TokenForm, TokenRow, role_choices, visibility_choices};
use askama::Template;
use registry_rules::{MinimumLevel, Role, Visibility};

/// The page of a project.
#[derive(Debug, Template)]
#[template(path = "project.html")]
pub struct ProjectPage {
    /// The frame.
    pub shell: Shell,
    /// The project's number.
    pub id: i64,
    /// Its path.
    pub path: String,
    /// Who may pull.
    pub visibility: Visibility,
    /// The user's own role.
    pub role: Option<Role>,
    /// Whether the user sees more than that there is the project: members and administrators.
    pub belongs: bool,
    /// Whether the user may change rules, members and tokens.
    pub may_edit: bool,
    /// Whether the user may change the visibility, and remove the project.
    pub owns: bool,
    /// One page of the protection rules.
    pub rules: Vec<RuleRow>,
    /// How many there are.
    pub rules_found: usize,
    /// The path of the page of rules before this one.
    pub earlier: Option<String>,
    /// The path of the page of rules after this one.
    pub later: Option<String>,
    /// Who may push to repositories that no rule matches.
    pub others_push: People,
    /// Who may delete from them.
    pub others_delete: People,
    /// The tag rules.
    pub tag_rules: Vec<TagRuleRow>,
    /// Whether there may be one more.
    pub tag_rules_full: bool,
    /// The members, of the project itself first.
    pub members: Vec<MemberRow>,
    /// The form for a member.
    pub member_form: MemberForm,
    /// The deploy tokens, where the user may edit.
    pub tokens: Vec<TokenRow>,
    /// The form for a deploy token.
    pub token_form: TokenForm,
}

/// A protection rule.
#[derive(Debug)]
pub struct RuleRow {
    /// Its number.
    pub id: i64,
    /// Which repositories it protects.
    pub pattern: String,
    /// The least level for pushing.
    pub push: Option<MinimumLevel>,
    /// The least level for deleting.
    pub delete: Option<MinimumLevel>,
    /// Who may push now, as far as this rule goes.
    pub may_push: People,
    /// Who may delete now.
    pub may_delete: People,
}

/// Those who may do something.
#[derive(Clone, Debug, Default)]
pub struct People {
    /// The first of them.
    pub named: Vec<Person>,
    /// How many more there are.
    pub more: usize,
}

/// A user or a deploy token.
#[derive(Clone, Debug)]
pub struct Person {
    /// The name.
    pub name: String,
    /// Why: the role, `administrator` or `deploy token`.
    pub role: &'static str,
}

/// A tag rule.
#[derive(Debug)]
pub struct TagRuleRow {
    /// Its number.
    pub id: i64,
    /// Which tags it protects.
    pub pattern: String,
    /// The least levels for pushing and deleting; none where the tags are immutable.
    pub levels: Option<(MinimumLevel, MinimumLevel)>,
}

/// A member.
#[derive(Debug)]
pub struct MemberRow {
    /// The user's number.
    pub user: i64,
    /// The user's name.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The group that gives it; none where the project itself does.
    pub group: Option<String>,
    /// Whether the user is blocked and can do nothing at all.
    pub blocked: bool,
}

/// The form that adds a member or changes a role.
#[derive(Debug, Default)]
pub struct MemberForm {
    /// The user's name.
    pub user: Field,
    /// The role.
    pub role: Field,
}

impl ProjectPage {
    fn roles(&self) -> [Choice; 5] {
        role_choices()
    }

    fn visibilities(&self) -> [Choice; 2] {
        visibility_choices()
    }

    fn visibility_field(&self) -> Field {
        Field::new(match self.visibility {
            Visibility::Public => "public",
            Visibility::Private => "private",
        })
    }

    fn faults(&self) -> Vec<Fault<'_>> {
        let mut all = faults(&[("user", &self.member_form.user), ("role", &self.member_form.role)]);
        all.extend(self.token_form.faults());
        all
    }
}

impl TagRuleRow {
    /// What the cells for push and delete are called and say; nothing where the tags are immutable.
    fn cells(&self) -> [(&'static str, Option<&'static str>); 2] {
        [
            ("Push", self.levels.map(|(push, _)| level_label(Some(push)))),
            ("Delete", self.levels.map(|(_, delete)| level_label(Some(delete)))),
        ]
    }
}

/// A level as the tables name it.
pub(crate) fn level_label(level: Option<MinimumLevel>) -> &'static str {
    match level {
        None => "not protected",
        Some(MinimumLevel::Maintainer) => "maintainer",
        Some(MinimumLevel::Owner) => "owner",
        Some(MinimumLevel::Admin) => "administrator",
        Some(MinimumLevel::NoOne) => "nobody",
    }
}
