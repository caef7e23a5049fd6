//! Users, and the names that users and deploy tokens log in with.

use crate::PasswordHash;

/// The number of a user in the database; never given to a second one.
pub type UserId = i64;

/// Longest name in characters.
const NAME_MAX: usize = 63;

/// The names that job tokens log in with; no user or deploy token has one of them. The second is the peer's.
pub const JOB_LOGINS: [&str; 2] = ["ci-token", "gitlab-ci-token"];

/// A user of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: UserId,
    /// What it logs in with.
    pub name: String,
    /// Its password; it has none where absent, and logs in with tokens alone.
    pub password: Option<PasswordHash>,
    /// May do what no role gives.
    pub administrator: bool,
    /// May do nothing.
    pub blocked: bool,
}

/// Whether a user or a deploy token may have this name: `[a-z0-9][a-z0-9._-]{0,62}`, and not one of [`JOB_LOGINS`].
pub fn is_user_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(|byte| letter(byte) || b"._-".contains(&byte))
        && !JOB_LOGINS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_not_reserved() {
        for good in ["a", "0", "ann.lee_x-1", &"a".repeat(63)] {
            assert!(is_user_name(good), "{good}");
        }
        for bad in [
            "",
            "A",
            "-a",
            ".a",
            "a b",
            "a/b",
            "ä",
            "a\n",
            "ci-token",
            "gitlab-ci-token",
            &"a".repeat(64),
        ] {
            assert!(!is_user_name(bad), "{bad}");
        }
    }
}
