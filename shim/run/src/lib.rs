//! One container from an image's name to its exit code, on a host with containerd: `casemate run`, and its first half alone,
//! `casemate layer prepare`.
//!
//! ```text
//! name ─► image in containerd, or pulled there ─► layers, unpacked by containerd, converted by casemate-converter
//!      ─► policy: this process, these root hashes ─► container, task, streams ─► exit code; nothing stays but the image
//! ```
//! A policy that the caller gives names images with the digests that it was made of ([`policy_tools::pins`]). If the name has come to
//! mean another image, nothing is started, and both digests are said. The guest does not rely on that: it judges layers.
#![forbid(unsafe_code)]

mod attach;
mod cleanup;
mod containerd;
mod expiry;
mod fifos;
mod image;
mod layers;
mod news;
mod prepare;
mod process;
mod refusal;
mod run_policy;
mod signals;
mod source;
mod spec;
mod terminal;

pub use attach::AttachError;
pub use containerd::ContainerdError;
pub use image::FindError;
pub use layers::{LayerError, Node, ReadyLayer};
pub use news::{News, Progress};
pub use prepare::{Preparation, PrepareError, Prepared, prepare};
pub use process::{Overrides, ProcessError};
pub use source::{Pulled, Source};
pub use terminal::is_there as has_terminal;

use cleanup::Made;
use containerd::Containerd;
use image::Found;
use oci::{Digest, Reference};
use process::Process;
use refusal::Refusal;
use signals::Signals;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Annotation that carries the policy.
const POLICY: &str = "io.casemate.policy";

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Request {
    /// containerd's socket.
    pub address: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The snapshotter that unpacks layers.
    pub snapshotter: String,
    /// The image.
    pub source: Source,
    /// Id of the container; default: one of its own.
    pub name: Option<String>,
    /// The process.
    pub overrides: Overrides,
    /// Annotations of the container, for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// The policy's text, in place of a generated one.
    pub policy: Option<String>,
    /// Only make the policy.
    pub policy_only: bool,
    /// Where converted layers are.
    pub node: Node,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container has run, and this is its exit status.
    Exited(u32),
    /// The policy is made.
    Policy(String),
}

/// Why nothing ran, or not to its end. The last words say what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// containerd refused.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// There is no usable image.
    #[error(transparent)]
    Image(#[from] FindError),
    /// There is nothing to run in the image.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The layers cannot be converted.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// There is no policy.
    #[error("cannot make the policy")]
    Policy(#[from] policy_tools::GenerateError),
    /// The image is not the one that the policy was made of.
    #[error(
        "denied: the policy was made of {image} at {pinned}, and {image} is {found} now: make a policy of the new image, or run the old \
         one by its digest"
    )]
    Moved {
        /// The image's name.
        image: String,
        /// The digest in the policy.
        pinned: Digest,
        /// The digest now.
        found: Digest,
    },
    /// The policy denied it.
    #[error("the policy with digest {digest} does not allow it: {sentence}")]
    Denied {
        /// Of the policy.
        digest: String,
        /// What and why.
        sentence: String,
        /// For `casemate policy explain`; empty if there is none.
        decision: String,
    },
    /// containerd does not find the shim.
    #[error(
        "containerd does not find containerd-shim-casemate-v2: install it where containerd's PATH leads (make install); `casemate host check` says what else is missing"
    )]
    NoShim,
    /// A container of that name is there.
    #[error("there is a container or snapshot {0} already: remove it (ctr container delete {0}), or give another --name")]
    Exists(String),
    /// The container did not run to its end.
    #[error("container {id} did not run to its end")]
    Attach {
        /// Its id.
        id: String,
        /// The cause.
        source: AttachError,
    },
    /// A signal came before there was a container.
    #[error("ended by signal {0} before the container had started")]
    Interrupted(u32),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

impl RunError {
    /// The signal that ended it.
    pub fn signal(&self) -> Option<u32> {
        match self {
            Self::Interrupted(number)
            | Self::Attach {
                source: AttachError::Interrupted(number),
                ..
            } => Some(*number),
            _ => None,
        }
    }
}

/// Runs one container. `pull` is asked for an image that containerd lacks. What was made is removed on every way out, the image excepted.
///
/// # Errors
/// See [`RunError`].
pub async fn run(
    request: &Request,
    pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn std::error::Error + Send + Sync>>,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Outcome, RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let containerd = Containerd::connect(&request.address, &request.namespace).await?;
    let own = source::own_name("run");
    let id = request.name.clone().unwrap_or_else(|| own.clone());
    let mut made = Made::new(containerd.clone(), &request.snapshotter, &id);
    let job = Job {
        request,
        id: &id,
        own: &own,
    };
    let outcome = job.run(containerd, pull, &mut made, &mut signals, tell).await;
    tokio::select! {
        failures = made.remove() => for failure in failures {
            tell(News::Note(format!("something is left: {failure}")));
        },
        _ = signals.end_after(cleanup::PATIENCE) => tell(News::Note(format!("interrupted while container {id} was removed: see `ctr task list` and `ctr container list`"))),
    }
    outcome
}

/// One run.
struct Job<'a> {
    request: &'a Request,
    /// Of the container.
    id: &'a str,
    /// Name of its lease and of what is under way.
    own: &'a str,
}

/// A container that can be started.
struct Ready {
    policy: String,
    terminal: bool,
    /// Open until the shim has them, so that nobody collects what the policy was made of.
    _layers: Vec<ReadyLayer>,
}

impl Job<'_> {
    async fn run(
        &self,
        containerd: Containerd,
        pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn std::error::Error + Send + Sync>>,
        made: &mut Made,
        signals: &mut Signals,
        tell: &mut dyn FnMut(News<'_>),
    ) -> Result<Outcome, RunError> {
        let containerd = containerd.under_lease(self.own);
        let ready = tokio::select! {
            ready = self.prepare(&containerd, pull, made, tell) => ready?,
            number = signals.end() => return Err(RunError::Interrupted(number)),
        };
        if self.request.policy_only {
            return Ok(Outcome::Policy(ready.policy));
        }
        made.task();
        let known = attach::Known {
            containerd: &containerd,
            id: self.id,
            snapshotter: &self.request.snapshotter,
            terminal: ready.terminal,
        };
        let ran = attach::run(&known, signals, &mut |note| tell(News::Note(note))).await;
        ran.map(Outcome::Exited).map_err(|source| match refusal::understand(&source) {
            Some(Refusal::Denied { sentence, decision }) => RunError::Denied {
                digest: hex::encode(policy::digest(&ready.policy)),
                sentence,
                decision,
            },
            Some(Refusal::NoShim) => RunError::NoShim,
            None => RunError::Attach {
                id: self.id.to_owned(),
                source,
            },
        })
    }

    /// Everything before the task.
    async fn prepare(
        &self,
        containerd: &Containerd,
        pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn std::error::Error + Send + Sync>>,
        made: &mut Made,
        tell: &mut dyn FnMut(News<'_>),
    ) -> Result<Ready, RunError> {
        let request = self.request;
        if containerd.has_container(self.id).await? {
            return Err(RunError::Exists(self.id.to_owned()));
        }
        made.lease(self.own);
        containerd.create_lease(self.own, expiry::of_lease(SystemTime::now())).await?;
        let found = image::obtain(containerd, &request.source, self.own, pull, tell).await?;
        let process = Process::new(&found.image.config, &request.overrides)?;
        let (policy, layers) = match &request.policy {
            Some(text) => {
                compare(text, &found.called, found.digest)?;
                (text.clone(), Vec::new())
            }
            None => self.policy(containerd, &found, &process, tell).await?,
        };
        tell(News::Policy {
            text: &policy,
            digest: policy::digest(&policy),
        });
        let ready = Ready {
            policy,
            terminal: process.terminal,
            _layers: layers,
        };
        if request.policy_only {
            return Ok(ready);
        }
        let parent = image::unpack(containerd, &found, &request.snapshotter, self.own).await?;
        let mut annotations = request.annotations.clone();
        annotations.insert(POLICY.to_owned(), encoded(&ready.policy));
        let document = spec::of_container(&process, &self.cgroup(), &annotations).to_string();
        made.snapshot(true);
        let prepared = containerd.prepare_snapshot(&request.snapshotter, self.id, &parent).await;
        self.ours(prepared, |ours| made.snapshot(ours))?;
        made.container(true);
        let created = containerd.create_container(self.id, &found.name, &request.snapshotter, document.into_bytes());
        self.ours(created.await, |ours| made.container(ours))?;
        Ok(ready)
    }

    /// A policy of the image's root hashes, with the layers that have them.
    async fn policy(
        &self,
        containerd: &Containerd,
        found: &Found,
        process: &Process,
        tell: &mut dyn FnMut(News<'_>),
    ) -> Result<(String, Vec<ReadyLayer>), RunError> {
        let mut progress = |progress| tell(News::Layers(progress));
        let cgroup = self.cgroup();
        let layers = layers::ready(containerd, &found.image.layers, &self.request.node, &cgroup, &mut progress).await?;
        let hashes = layers.iter().map(|ready| hex::encode(ready.layer.root_hash)).collect();
        let policy = run_policy::generate(process, hashes, &found.called, found.digest)?;
        Ok((policy, layers))
    }

    /// What another run, or somebody else, has made in the meantime is not removed here.
    fn ours<T>(&self, made: Result<T, ContainerdError>, note: impl FnOnce(bool)) -> Result<(), RunError> {
        match made {
            Err(error) if error.code() == Some(tonic::Code::AlreadyExists) => {
                note(false);
                Err(RunError::Exists(self.id.to_owned()))
            }
            other => Ok(other.map(drop)?),
        }
    }

    /// As `ctr run` names it.
    fn cgroup(&self) -> String {
        format!("/{}/{}", self.request.namespace, self.id)
    }
}

/// Refuses an image that a policy names with other digests alone.
fn compare(policy: &str, image: &str, found: Digest) -> Result<(), RunError> {
    let pins = policy_tools::pins(policy);
    let pinned: Vec<Digest> = pins.iter().filter(|pin| pin.image == image).map(|pin| pin.digest).collect();
    match pinned.first() {
        Some(first) if !pinned.contains(&found) => Err(RunError::Moved {
            image: image.to_owned(),
            pinned: *first,
            found,
        }),
        _ => Ok(()),
    }
}

fn encoded(policy: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy_tools::{Pin, pinned};

    #[test]
    fn an_image_whose_name_has_moved_is_refused_with_both_digests() {
        let [old, new] = [b"old", b"new"].map(|content| Digest::of(content));
        let name = "docker.io/library/app:1";
        let pin = |digest| Pin {
            image: name.to_owned(),
            digest,
        };
        let text = pinned("package policy\n", &[pin(old)]);
        assert!(compare(&text, name, old).is_ok());
        let error = compare(&text, name, new).unwrap_err().to_string();
        assert!(error.contains(&old.to_string()) && error.contains(&new.to_string()), "{error}");
        // Nothing is said of other images, and a policy may be of several.
        assert!(compare(&text, "docker.io/library/app:2", new).is_ok());
        assert!(compare("package policy\n", name, new).is_ok());
        assert!(compare(&pinned("package policy\n", &[pin(old), pin(new)]), name, new).is_ok());
    }
}
