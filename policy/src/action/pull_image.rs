//! Pulls by the guest itself: `pull_image`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Pulls an image in the guest, which reaches a registry over the pod's network and fills the scratch. What is pulled is judged again, as
/// layers, before anything mounts it. The policy must have a rule: policies without one deny it, with and without `casemate_version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullImage {
    /// `REGISTRY/REPOSITORY@sha256:…`, the registry in lower case, without a tag.
    pub image: String,
}

impl Action for PullImage {
    const POINT: &'static str = "pull_image";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.image),
            ..Subject::default()
        }
    }
}
