//! `start`: binds the sandbox's socket, starts the process that serves it, and prints the address.
//!
//! containerd 1.6 reads standard output and error together as the address: nothing else may be printed.

use super::{
    Args, BootstrapError,
    address::{Address, Bound, Name},
    shim_cgroup,
};
use crate::{
    bundle::{Bundle, Role},
    options::Options,
    sandbox_service::keep_options,
};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::{Message, well_known_types::any::Any};
use std::{
    fs,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Longest start request, as in containerd's own shims.
const INPUT_MAX_BYTES: u64 = 10 << 20;
/// Task API version announced where the reply has a field for it (`containerd.task.v3.Task`).
const TASK_API: i32 = 3;
/// How containerd speaks to this shim.
const PROTOCOL: &str = "ttrpc";
/// Highest `oom_score_adj`.
const OOM_SCORE_MAX: i32 = 1000;

/// Runs the action.
///
/// # Errors
/// See [`BootstrapError`]; socket and process are removed.
pub fn start(args: &Args) -> Result<(), BootstrapError> {
    let input = read_input()?;
    let params = bootstrap_params(args, &input);
    let cgroup = shim_cgroup_of(params.as_ref(), &input);
    let bundle_dir = args.bundle_dir()?;
    let group = Bundle::group_in(&bundle_dir, &args.id)?;
    let has_document = Bundle::has_document(&bundle_dir);
    let form = Form::of(params.is_some(), has_document);
    if !has_document && let Some(options) = options(params.as_ref(), &input) {
        // Of the Sandbox API, whose calls do not have them.
        keep_options(&bundle_dir, &options).map_err(|e| BootstrapError::Io("keep the runtime options", e))?;
    }
    Args::check_group(&group.id)?;
    let socket_dir = params.as_ref().and_then(|p| p.socket_dir.as_deref()).filter(|dir| !dir.is_empty());
    let address = Address::new(socket_dir, &args.address, &args.namespace, &group.id);
    if group.role == Role::Member {
        // Its sandbox's shim serves it. To bind in order to see whether that is there would be in the way of its start.
        if !address.announce(&args.id, &bundle_dir)? {
            return Err(BootstrapError::NoSandbox(group.id));
        }
        address.write(&bundle_dir)?;
        return reply(&address, form);
    }
    match bind(&address, args, &bundle_dir)? {
        Bound::Served => address.write(&bundle_dir)?,
        Bound::New(listener) => {
            let name = Name::of(&listener);
            let started = spawn(args, &bundle_dir, listener.into()).and_then(|mut shim| {
                let joined = cgroup.map_or(Ok(()), |cgroup| shim_cgroup::join(&cgroup, shim.id()));
                joined.and_then(|()| address.write(&bundle_dir)).inspect_err(|_| {
                    // containerd would never call it.
                    let _ = shim.kill();
                    let _ = shim.wait();
                })
            });
            if let Err(error) = started {
                name.iter().for_each(Name::remove);
                return Err(error);
            }
        }
    }
    reply(&address, form)
}

/// Binds the socket, or announces the container to the shim that has it and will not end before.
fn bind(address: &Address, args: &Args, bundle: &Path) -> Result<Bound, BootstrapError> {
    loop {
        match address.bind()? {
            // It may have ended between the two.
            Bound::Served if !address.announce(&args.id, bundle)? => {}
            bound => return Ok(bound),
        }
    }
}

fn read_input() -> Result<Vec<u8>, BootstrapError> {
    let mut input = Vec::new();
    let read = io::stdin().lock().take(INPUT_MAX_BYTES + 1).read_to_end(&mut input);
    match read {
        Ok(n) if n as u64 > INPUT_MAX_BYTES => Err(BootstrapError::LongInput(INPUT_MAX_BYTES)),
        Ok(_) => Ok(input),
        Err(e) => Err(BootstrapError::Io("read the start request", e)),
    }
}

/// containerd 2.3 and later send `BootstrapParams`, earlier versions an `Any` with options or nothing. The two have the same
/// wire format; only `BootstrapParams` names this container.
fn bootstrap_params(args: &Args, input: &[u8]) -> Option<BootstrapParams> {
    BootstrapParams::parse_from_bytes(input)
        .ok()
        .filter(|p| p.instance_id == args.id && p.namespace == args.namespace)
}

/// The cgroup for the shim that the options ask for.
fn shim_cgroup_of(params: Option<&BootstrapParams>, input: &[u8]) -> Option<String> {
    Options::of(&options(params, input)?).shim_cgroup
}

/// The runtime options: an `Any` is the whole input, or an extension of the parameters.
fn options(params: Option<&BootstrapParams>, input: &[u8]) -> Option<Any> {
    match params {
        Some(params) => {
            let mut values = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
            values.find(|value| Options::of(value) != Options::default()).cloned()
        }
        None => Any::parse_from_bytes(input).ok().filter(|options| !options.type_url.is_empty()),
    }
}

/// Starts this program again with the listener as standard input and no other stream: containerd waits until every process
/// with this one's output has closed it.
fn spawn(args: &Args, bundle: &Path, listener: OwnedFd) -> Result<Child, BootstrapError> {
    let program = std::env::current_exe().map_err(|e| BootstrapError::Io("find this program", e))?;
    let mut command = Command::new(program);
    command.args([
        "-namespace",
        &args.namespace,
        "-id",
        &args.id,
        "-address",
        &args.address,
        "-publish-binary",
        &args.publish_binary,
    ]);
    command.arg("-bundle").arg(bundle);
    if args.debug {
        command.arg("-debug");
    }
    command.stdin(Stdio::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    // In a process group of its own: a signal to containerd's terminal must not reach running pods.
    let child = command
        .process_group(0)
        .spawn()
        .map_err(|e| BootstrapError::Io("start the serving process", e))?;
    raise_oom_score(child.id());
    Ok(child)
}

/// A shim should be OOM-killed before containerd, so its score is containerd's plus one. The score is never lowered, which
/// would need a capability; if this fails, the inherited score remains.
fn raise_oom_score(pid: u32) {
    let score = |pid: &str| {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))
            .ok()?
            .trim()
            .parse::<i32>()
            .ok()
    };
    let containerd = nix::unistd::getppid().to_string();
    if let (Some(parent), Some(own)) = (score(&containerd), score("self")) {
        let wanted = (parent + 1).min(OOM_SCORE_MAX);
        if wanted > own {
            let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), wanted.to_string());
        }
    }
}

/// The form of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The address, which stands for version 2 from 1.6 to 2.2. 1.7 refuses more, and 2.1 calls a shim in the same way as 1.7
    /// (`MAX_SHIM_VERSION=2` from both).
    Address,
    /// `BootstrapParams` of containerd's `pkg/shim` in JSON, for containerd 2.0 to 2.2 where it can be no other: a bundle without a
    /// document is the Sandbox API's.
    Json,
    /// `BootstrapResult`, for containerd 2.3 and later.
    Protobuf,
}

impl Form {
    fn of(has_params: bool, has_document: bool) -> Self {
        match has_document {
            _ if has_params => Self::Protobuf,
            true => Self::Address,
            false => Self::Json,
        }
    }
}

fn reply(address: &Address, form: Form) -> Result<(), BootstrapError> {
    io::stdout()
        .write_all(&encode(address, form)?)
        .map_err(|e| BootstrapError::Io("print the address", e))
}

fn encode(address: &Address, form: Form) -> Result<Vec<u8>, BootstrapError> {
    let address = address.to_string();
    Ok(match form {
        Form::Address => address.into_bytes(),
        Form::Json => serde_json::json!({ "version": TASK_API, "address": address, "protocol": PROTOCOL })
            .to_string()
            .into_bytes(),
        Form::Protobuf => {
            let result = BootstrapResult {
                version: TASK_API,
                address,
                protocol: PROTOCOL.to_owned(),
                ..Default::default()
            };
            result.write_to_bytes().map_err(BootstrapError::Encode)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;

    fn args() -> Args {
        Args::parse("-namespace n -id web start".split(' ').map(str::to_owned)).unwrap()
    }

    #[test]
    fn bootstrap_params_are_distinguished_from_options() {
        let params = BootstrapParams {
            instance_id: "web".into(),
            namespace: "n".into(),
            socket_dir: Some("/run/x".into()),
            ..Default::default()
        };
        let found = bootstrap_params(&args(), &params.write_to_bytes().unwrap()).unwrap();
        assert_eq!(found.socket_dir.as_deref(), Some("/run/x"));
        // An Any has the same field numbers 1 and 2: it parses, and must still not count.
        let options = Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: b"n".to_vec(),
            ..Default::default()
        };
        assert!(bootstrap_params(&args(), &options.write_to_bytes().unwrap()).is_none());
        assert!(bootstrap_params(&args(), b"").is_none());
    }

    #[test]
    fn the_reply_has_the_form_that_containerd_reads() {
        assert_eq!(Form::of(false, true), Form::Address);
        assert_eq!(Form::of(false, false), Form::Json);
        assert_eq!(Form::of(true, true), Form::Protobuf);
        assert_eq!(Form::of(true, false), Form::Protobuf);
        let address = Address::new(Some("/s"), "c", "n", "web");
        assert_eq!(encode(&address, Form::Address).unwrap(), address.to_string().as_bytes());
        let json: serde_json::Value = serde_json::from_slice(&encode(&address, Form::Json).unwrap()).unwrap();
        assert_eq!((&json["version"], &json["protocol"]), (&3.into(), &"ttrpc".into()));
        assert_eq!(json["address"], address.to_string());
        let result = BootstrapResult::parse_from_bytes(&encode(&address, Form::Protobuf).unwrap()).unwrap();
        assert_eq!((result.version, result.address), (3, address.to_string()));
    }

    #[test]
    fn the_shims_cgroup_comes_with_either_form_of_the_start_request() {
        let options = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: b"\x1a\x02/a".to_vec(),
            ..Default::default()
        };
        let bytes = options.write_to_bytes().unwrap();
        assert_eq!(shim_cgroup_of(None, &bytes).as_deref(), Some("/a"));
        let params = BootstrapParams {
            extensions: vec![
                Extension::new(),
                Extension {
                    value: Some(options).into(),
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        assert_eq!(shim_cgroup_of(Some(&params), &bytes).as_deref(), Some("/a"));
        assert_eq!(shim_cgroup_of(None, b"\xff"), None);
    }
}
