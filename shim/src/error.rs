//! Errors of task calls, and their ttrpc codes.
//!
//! containerd acts on codes: `NOT_FOUND` means gone (CRI takes it as success of a kill), `FAILED_PRECONDITION` a
//! wrong state, `UNIMPLEMENTED` a call that the runtime does not have.

use crate::{
    bundle::BundleError, config::ConfigError, describe::describe, fragments::FragmentsError, layers::LayersError,
    layers::guest::GuestImageError, pod_files::PodFileError, policy_text::PolicyTextError, stdio::StdioError, vm::ControlError,
    vm::VmError,
};
use container_document::DocumentError;
use oci::Digest;
use pod_network::NetworkError;
use std::path::PathBuf;
use ttrpc::Code;
use vm_spec::control::ClientError;

/// Why a task call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container of that id.
    #[error("container {0} not found")]
    NoContainer(String),
    /// No exec of that id in the container.
    #[error("exec {exec} not found in container {container}")]
    NoExec {
        /// Container id.
        container: String,
        /// Exec id.
        exec: String,
    },
    /// A signal for a process that has ended.
    #[error("process already finished")]
    Finished,
    /// A container of that id exists.
    #[error("container {0} already exists")]
    ContainerExists(String),
    /// An exec of that id exists.
    #[error("exec {exec} already exists in container {container}")]
    ExecExists {
        /// Container id.
        container: String,
        /// Exec id.
        exec: String,
    },
    /// A call that the process's state does not allow.
    #[error("cannot {call} a {state} process")]
    State {
        /// What was asked.
        call: &'static str,
        /// The process's state.
        state: &'static str,
    },
    /// A call that the sandbox's state does not allow.
    #[error("the sandbox is {0}")]
    Sandbox(&'static str),
    /// `Delete` came while the container was being created, or its bundle is gone.
    #[error("the creation was aborted")]
    Aborted,
    /// SIGKILL has not ended a container in time.
    #[error("container {0} goes on after SIGKILL")]
    Survived(String),
    /// A file of the pod cannot be read.
    #[error(transparent)]
    PodFile(#[from] PodFileError),
    /// The pod's network cannot be given to the VM.
    #[error("cannot connect the VM to the pod's network")]
    Network(#[from] NetworkError),
    /// A request that is not valid.
    #[error("{0}")]
    Invalid(&'static str),
    /// A call that this runtime does not implement.
    #[error("{0} is not implemented by this runtime")]
    Unimplemented(&'static str),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The agent would refuse the bundle's document, whatever the policy and the image.
    #[error("the container cannot be run in the VM")]
    Document(#[from] DocumentError),
    /// The configuration or an annotation cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyTextError),
    /// The annotation with signed fragments cannot be used.
    #[error(transparent)]
    Fragments(#[from] FragmentsError),
    /// The image's layers cannot be prepared.
    #[error("cannot prepare the image's layers")]
    Layers(#[from] LayersError),
    /// It is not known which image the guest is to pull.
    #[error(transparent)]
    GuestImage(#[from] GuestImageError),
    /// The guest's answer to a pull names no layers.
    #[error("the guest answers the pull of image {0} without root hashes of layers")]
    PullAnswer(String),
    /// There is no VM.
    #[error("cannot boot the sandbox's VM")]
    Vm(#[from] VmError),
    /// The VMM refused.
    #[error("cannot attach layers to the VM")]
    Control(#[from] ControlError),
    /// The guest's scratch disk has no room on the host.
    #[error("cannot mount the scratch disk: no space left on device: the file system of {} is full", directory.display())]
    ScratchFull {
        /// Directory of the scratch disks.
        directory: PathBuf,
        /// The agent's error; the guest sees only that its disk fails.
        source: ttrpc::Error,
    },
    /// A stream cannot be opened.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// An answer cannot be encoded.
    #[error("cannot encode the answer")]
    Encode(#[source] protobuf::Error),
    /// The agent answered with an error, or did not answer.
    #[error("{doing}")]
    Agent {
        /// The call.
        doing: String,
        /// The answer.
        source: ttrpc::Error,
    },
    /// The VM ended during a call.
    #[error("cannot {doing}: the VM ended ({status}); its console ends with:\n{console}")]
    Ended {
        /// The call.
        doing: String,
        /// How the VMM ended.
        status: String,
        /// Last lines of the console.
        console: String,
    },
}

impl Error {
    /// Wraps an answer of the agent; its text is the guest's, which is not trusted.
    pub fn agent(doing: impl Into<String>) -> impl FnOnce(ttrpc::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Agent {
            doing,
            source: agent_protocol::from_guest(source),
        }
    }

    /// A denial, with a line about the layers that were made of unpacked files, whose root hashes no policy can name. Other errors stay.
    #[must_use]
    pub fn about_unpacked(self, layers: &[Digest]) -> Self {
        let denied = self.is_denial();
        match self {
            Self::Agent {
                doing,
                source: ttrpc::Error::RpcStatus(mut status),
            } if denied && !layers.is_empty() => {
                let names: Vec<String> = layers.iter().map(Digest::to_string).collect();
                status.message.push_str(&format!(
                    "\nnot precomputable: containerd has discarded the blobs of layers {}, and what their unpacked files make has other root \
                     hashes; pull the image again, with discard_unpacked_layers = false in containerd's configuration",
                    names.join(", ")
                ));
                Self::Agent {
                    doing,
                    source: ttrpc::Error::RpcStatus(status),
                }
            }
            other => other,
        }
    }

    /// Whether the policy denied the call.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Agent { source: ttrpc::Error::RpcStatus(status), .. } if status.code() == Code::PERMISSION_DENIED)
    }

    /// Whether the agent has no such process, or none that still runs.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Agent { source: ttrpc::Error::RpcStatus(status), .. } if status.code() == Code::NOT_FOUND)
    }

    /// Whether the guest failed at a mount for a reason of its own, such as a layer that is not what its root hash says.
    pub fn may_be_damage(&self) -> bool {
        matches!(self, Self::Agent { source: ttrpc::Error::RpcStatus(status), .. } if status.code() == Code::INTERNAL)
    }

    /// The call, if it was not answered: the agent, the VMM or the guest's end of a stream has gone.
    pub fn unanswered_call(&self) -> Option<String> {
        match self {
            Self::Agent { doing, source } => (!matches!(source, ttrpc::Error::RpcStatus(_))).then(|| doing.clone()),
            Self::Control(ControlError::Client(ClientError::Socket(_))) => Some("attach layers to the VM".to_owned()),
            Self::Stdio(StdioError::Connect { stream, .. }) => Some(format!("connect {stream} to the guest")),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoContainer(_) | Self::NoExec { .. } | Self::Finished => Code::NOT_FOUND,
            Self::ContainerExists(_) | Self::ExecExists { .. } => Code::ALREADY_EXISTS,
            Self::State { .. } | Self::Sandbox(_) | Self::Policy(PolicyTextError::Required) => Code::FAILED_PRECONDITION,
            Self::Layers(error) if error.is_precondition() => Code::FAILED_PRECONDITION,
            Self::GuestImage(GuestImageError::Content(_)) => Code::INTERNAL,
            Self::GuestImage(_) => Code::FAILED_PRECONDITION,
            Self::Aborted => Code::CANCELLED,
            Self::Invalid(_)
            | Self::Bundle(_)
            | Self::Document(_)
            | Self::Config(_)
            | Self::Policy(_)
            | Self::Fragments(_)
            | Self::Stdio(_) => Code::INVALID_ARGUMENT,
            Self::Unimplemented(_) => Code::UNIMPLEMENTED,
            Self::ScratchFull { .. } => Code::RESOURCE_EXHAUSTED,
            Self::Survived(_) => Code::DEADLINE_EXCEEDED,
            Self::Layers(_)
            | Self::Network(_)
            | Self::PodFile(_)
            | Self::Vm(_)
            | Self::Control(_)
            | Self::Encode(_)
            | Self::PullAnswer(_) => Code::INTERNAL,
            Self::Agent {
                source: ttrpc::Error::RpcStatus(status),
                ..
            } => status.code(),
            Self::Agent { .. } | Self::Ended { .. } => Code::UNAVAILABLE,
        }
    }

    /// The text that containerd passes to its client. A denial passes unchanged: its first sentence is written for the user,
    /// and kubelet truncates long events.
    fn message(&self) -> String {
        match self {
            Self::Agent {
                source: ttrpc::Error::RpcStatus(status),
                ..
            } if self.is_denial() => status.message().to_owned(),
            Self::Agent {
                doing,
                source: ttrpc::Error::RpcStatus(status),
            } => format!("cannot {doing}: {}", status.message()),
            Self::Agent { doing, source } => format!("cannot {doing}: the VM's agent does not answer: {source}"),
            other => describe(other),
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error: Error) -> (Code, String) {
        match ttrpc::Error::from(error) {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
            other => panic!("{other}"),
        }
    }

    fn answer(code: Code, message: &str) -> Error {
        Error::agent("create container web")(ttrpc::Error::RpcStatus(ttrpc::get_status(code, message)))
    }

    #[test]
    fn unanswered_calls_are_recognised() {
        let silent = Error::agent("mount layer x")(ttrpc::Error::Socket("early eof".to_owned()));
        assert_eq!(silent.unanswered_call().as_deref(), Some("mount layer x"));
        let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let control = Error::Control(ClientError::Socket(gone()).into());
        assert_eq!(control.unanswered_call().as_deref(), Some("attach layers to the VM"));
        let connect = StdioError::Connect {
            stream: "stdout",
            source: agent_protocol::ConnectError::Socket(gone()),
        };
        assert_eq!(
            Error::Stdio(connect).unanswered_call().as_deref(),
            Some("connect stdout to the guest")
        );
        assert_eq!(answer(Code::NOT_FOUND, "no such thing").unanswered_call(), None);
        assert_eq!(Error::Control(ControlError::Unexpected).unanswered_call(), None);
    }

    #[test]
    fn an_ended_vm_is_reported_with_its_console() {
        let (code, text) = status(Error::Ended {
            doing: "mount layer x".to_owned(),
            status: "exit status: 4".to_owned(),
            console: "triple fault".to_owned(),
        });
        assert_eq!(code, Code::UNAVAILABLE);
        assert_eq!(
            text,
            "cannot mount layer x: the VM ended (exit status: 4); its console ends with:\ntriple fault"
        );
    }

    #[test]
    fn a_denial_reaches_the_caller_unchanged() {
        let text = "command [sh] is not allowed for container web. policyDecision<e30=>policyDecision";
        assert_eq!(
            status(answer(Code::PERMISSION_DENIED, text)),
            (Code::PERMISSION_DENIED, text.to_owned())
        );
    }

    #[test]
    fn a_denial_of_unpacked_layers_says_so_after_its_own_text() {
        let text = "denied by policy: layer may not be mounted: policyDecision<e30=>policyDecision";
        let layer = Digest::of(b"layer");
        let (code, said) = status(answer(Code::PERMISSION_DENIED, text).about_unpacked(&[layer]));
        assert_eq!(code, Code::PERMISSION_DENIED);
        let more = said.strip_prefix(text).expect("the denial comes first");
        assert!(more.starts_with("\nnot precomputable: "), "{more}");
        assert!(
            more.contains(&layer.to_string()) && more.contains("discard_unpacked_layers"),
            "{more}"
        );
        // Where every layer is that of a blob, and where nothing was denied, there is nothing to say.
        assert_eq!(status(answer(Code::PERMISSION_DENIED, text).about_unpacked(&[])).1, text);
        assert!(
            !status(answer(Code::INTERNAL, text).about_unpacked(&[layer]))
                .1
                .contains("precomputable")
        );
    }

    #[test]
    fn other_answers_keep_their_code_and_gain_context() {
        let expected = (Code::NOT_FOUND, "cannot create container web: no such slot".to_owned());
        assert_eq!(status(answer(Code::NOT_FOUND, "no such slot")), expected);
        let gone = Error::agent("start web")(ttrpc::Error::RemoteClosed);
        assert_eq!(status(gone).0, Code::UNAVAILABLE);
    }

    #[test]
    fn errors_have_the_codes_that_containerd_acts_on() {
        assert_eq!(status(Error::NoContainer("x".into())).0, Code::NOT_FOUND);
        assert_eq!(status(Error::Finished).0, Code::NOT_FOUND);
        assert_eq!(status(Error::ContainerExists("x".into())).0, Code::ALREADY_EXISTS);
        assert_eq!(
            status(Error::State {
                call: "start",
                state: "running"
            })
            .0,
            Code::FAILED_PRECONDITION
        );
        assert_eq!(status(Error::Unimplemented("checkpoint")).0, Code::UNIMPLEMENTED);
    }

    #[test]
    fn causes_are_listed_in_order() {
        let error = Error::Vm(VmError::Io("make the scratch disk", std::io::Error::other("no space")));
        assert_eq!(
            status(error).1,
            "cannot boot the sandbox's VM: cannot make the scratch disk: no space"
        );
    }
}
