//! Roles of members, and the least level that a protection rule asks for.

use std::fmt;
use std::str::FromStr;

/// A member's role in a project; later ones include earlier ones. The numbers are the peer's access levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// 10: sees the project, pulls nothing from a private one.
    Guest,
    /// 20: pulls.
    Reporter,
    /// 30: pushes.
    Developer,
    /// 40: deletes, and edits rules.
    Maintainer,
    /// 50.
    Owner,
}

/// The least level that may do what a rule protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MinimumLevel {
    /// 40.
    Maintainer,
    /// 50.
    Owner,
    /// 60: administrators of the service.
    Admin,
    /// Nobody, administrators included.
    NoOne,
}

/// A word that names no role or level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {known}")]
pub struct UnknownLevel {
    word: String,
    known: &'static str,
}

impl Role {
    /// Every role, the lowest first.
    pub const ALL: [Self; 5] = [Self::Guest, Self::Reporter, Self::Developer, Self::Maintainer, Self::Owner];

    /// `guest`, `reporter`, `developer`, `maintainer` or `owner`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Reporter => "reporter",
            Self::Developer => "developer",
            Self::Maintainer => "maintainer",
            Self::Owner => "owner",
        }
    }
}

impl MinimumLevel {
    /// Every level, the laxest first.
    pub const ALL: [Self; 4] = [Self::Maintainer, Self::Owner, Self::Admin, Self::NoOne];

    /// `maintainer`, `owner`, `admin` or `no_one`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Maintainer => "maintainer",
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::NoOne => "no_one",
        }
    }

    /// Whether a caller with this role may pass. Administrators have no need of a role.
    pub fn admits(self, role: Option<Role>, administrator: bool) -> bool {
        match self {
            Self::NoOne => false,
            _ if administrator => true,
            Self::Admin => false,
            Self::Owner => role >= Some(Role::Owner),
            Self::Maintainer => role >= Some(Role::Maintainer),
        }
    }
}

impl FromStr for Role {
    type Err = UnknownLevel;
    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|role| role.word() == word).ok_or_else(|| UnknownLevel {
            word: word.chars().take(64).collect(),
            known: "guest, reporter, developer, maintainer, owner",
        })
    }
}

impl FromStr for MinimumLevel {
    type Err = UnknownLevel;
    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.word() == word)
            .ok_or_else(|| UnknownLevel {
                word: word.chars().take(64).collect(),
                known: "maintainer, owner, admin, no_one",
            })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for MinimumLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_others_are_refused() {
        for role in Role::ALL {
            assert_eq!(role.word().parse(), Ok(role));
        }
        for level in MinimumLevel::ALL {
            assert_eq!(level.word().parse(), Ok(level));
        }
        assert!("developer".parse::<MinimumLevel>().is_err());
        assert!("Owner".parse::<Role>().is_err());
    }

    #[test]
    fn a_level_admits_itself_and_above() {
        use MinimumLevel::*;
        for (level, least) in [(Maintainer, Role::Maintainer), (Owner, Role::Owner)] {
            for role in Role::ALL {
                assert_eq!(level.admits(Some(role), false), role >= least);
            }
        }
        for level in MinimumLevel::ALL {
            assert!(!level.admits(None, false));
            assert_eq!(level.admits(None, true), level != NoOne);
        }
        assert!(!Admin.admits(Some(Role::Owner), false));
    }
}
