//! What a guest will show otherwise than the tar says. Root hashes of existing policies fix the bytes that hcsshim writes, so it is
//! said and not changed.

use crate::ext4::Attributes;
use std::fmt;

/// Counts of such entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Entries with POSIX access control lists: stored as in the tar, while ext4 has another form of its own for them.
    pub access_lists: u64,
    /// Entries with a time before 1970, or beyond 2³¹ seconds after: the kernel reads another one.
    pub times: u64,
}

impl Notes {
    /// Counts an entry.
    pub(crate) fn add(&mut self, attributes: &Attributes) {
        self.access_lists += u64::from(attributes.has_access_list());
        self.times += u64::from(attributes.has_odd_time());
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Notes::default()
    }

    /// One sentence for each kind that occurs.
    pub fn sentences(&self) -> Vec<String> {
        let kinds = [
            (
                self.access_lists,
                "entries with POSIX access control lists, which the guest's kernel cannot read: it may refuse access to these files \
                 (remove the lists with setfacl -b)",
            ),
            (
                self.times,
                "entries with times before 1970 or after January 2038, which the guest shows as other times",
            ),
        ];
        let occurring = kinds.into_iter().filter(|(count, _)| *count > 0);
        occurring.map(|(count, kind)| format!("{count} {kind}")).collect()
    }
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join("; "))
    }
}
