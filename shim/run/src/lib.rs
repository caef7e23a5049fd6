//! One container from an image's name to its exit code, on a host with containerd: `casemate run`.
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
mod hashes;
mod image;
mod process;
mod refusal;
mod run_policy;
mod signals;
mod spec;
mod terminal;

pub use attach::AttachError;
pub use containerd::ContainerdError;
pub use hashes::{HashError, Node};
pub use image::FindError;
pub use process::{Overrides, ProcessError};
pub use terminal::is_there as has_terminal;

use cleanup::Made;
use containerd::Containerd;
use image::Found;
use oci::{Digest, Reference, ReferenceError};
use process::Process;
use refusal::Refusal;
use signals::Signals;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// Annotation that carries the policy.
const POLICY: &str = "io.casemate.policy";

/// The image, as the user names it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A name in containerd or of a registry.
    Name(Reference),
    /// An OCI layout, or skopeo's `dir:`, as a directory or a tar file.
    Files(PathBuf),
}

impl Source {
    /// A path that exists, otherwise a reference.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let path = PathBuf::from(text);
        if path.exists() {
            return Ok(Self::Files(path));
        }
        text.parse().map(Self::Name)
    }
}

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

/// An image that was pulled, in files that may be gone with it.
pub struct Pulled {
    /// An OCI layout with this image alone.
    pub layout: PathBuf,
    /// What keeps the files.
    pub keep: Box<dyn Send>,
}

/// What the caller may show while it runs.
pub enum News<'a> {
    /// A step of what takes long.
    Step(String),
    /// Something that the user should know.
    Note(String),
    /// The policy, before anything runs under it.
    Policy {
        /// Its text.
        text: &'a str,
        /// SHA-256 of the text, the guest's host data.
        digest: [u8; 32],
    },
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
    /// The image is not there.
    #[error("cannot pull {image}")]
    Pull {
        /// Its name.
        image: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is nothing to run in the image.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The layers cannot be converted.
    #[error(transparent)]
    Layers(#[from] HashError),
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
    let own = format!("casemate-run-{:016x}", random());
    let id = request.name.clone().unwrap_or_else(|| own.clone());
    let mut made = Made::new(containerd.clone(), &request.snapshotter, &id);
    let job = Job {
        request,
        id: &id,
        own: &own,
    };
    let outcome = job.run(containerd, pull, &mut made, &mut signals, tell).await;
    for failure in made.remove().await {
        tell(News::Note(format!("something is left: {failure}")));
    }
    outcome
}

/// A number that no other run has.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Keyed with the kernel's random bytes.
    RandomState::new().hash_one(std::process::id())
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
        made.lease();
        containerd.create_lease(self.own, expiry::of_lease(SystemTime::now())).await?;
        let found = self.image(containerd, pull, tell).await?;
        let process = Process::new(&found.image.config, &request.overrides)?;
        let policy = match &request.policy {
            Some(text) => {
                compare(text, &found.called, found.digest)?;
                text.clone()
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

    async fn image(
        &self,
        containerd: &Containerd,
        pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn std::error::Error + Send + Sync>>,
        tell: &mut dyn FnMut(News<'_>),
    ) -> Result<Found, RunError> {
        let reference = match &self.request.source {
            Source::Files(path) => return Ok(image::import(containerd, path, None, self.own).await?),
            Source::Name(reference) => reference,
        };
        if let Some(found) = image::find(containerd, reference).await? {
            return Ok(found);
        }
        tell(News::Step(format!("pulling {reference}")));
        let pulled = pull(reference).await.map_err(|source| RunError::Pull {
            image: reference.to_string(),
            source,
        })?;
        let found = image::import(containerd, &pulled.layout, Some(reference), self.own).await?;
        drop(pulled.keep);
        Ok(found)
    }

    async fn policy(
        &self,
        containerd: &Containerd,
        found: &Found,
        process: &Process,
        tell: &mut dyn FnMut(News<'_>),
    ) -> Result<String, RunError> {
        let count = found.image.layers.len();
        let mut done = |ready| tell(News::Step(format!("layer {ready} of {count} is ready")));
        let cgroup = self.cgroup();
        let layers = hashes::of_layers(containerd, &found.image.layers, &self.request.node, &cgroup, &mut done).await?;
        Ok(run_policy::generate(process, layers, &found.called, found.digest)?)
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

    #[test]
    fn a_path_that_exists_is_files_and_anything_else_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        assert!(matches!(Source::parse(&path), Ok(Source::Files(_))));
        let Ok(Source::Name(name)) = Source::parse("no-such-file") else {
            panic!("not a name")
        };
        assert_eq!(name.to_string(), "docker.io/library/no-such-file:latest");
        assert!(Source::parse("/no/such/layout").is_err());
    }
}
