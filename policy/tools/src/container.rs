//! Containers of the policy: those of the configuration with all defaults filled in.

use std::path::Path;

use serde::Serialize;

use crate::GenerateError;
use crate::config::{
    Capabilities, Container, Definition, EnvRule, ExactMount, ExecProcess, ExternalProcess, IdName, Mount, Pod, Strategy, User,
    WindowsContainer,
};
use crate::confinement::Confinement;
use crate::file;
use crate::rule::{PolicyIdName, check_pattern};
use crate::source::{self, Source, Sources};

/// Largest seccomp profile in bytes.
const MAX_SECCOMP_BYTES: u64 = 1 << 20;
/// Root hash of the only layer of `k8s.gcr.io/pause:3.1`.
const PAUSE_LAYER: &str = "16b514057a06ad665f92c02863aca074fd5976c755d26bff16365299169e8415";
/// Environment of images and processes without one.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables of a pod's containers: the pod's name, which containerd sets, and the API server's address, which the kubelet sets.
const POD_VARIABLES: [&str; 2] = ["HOSTNAME=[a-z0-9.-]{1,253}", "KUBERNETES_[A-Z0-9_]{1,64}=[a-z0-9.:/-]{0,253}"];
/// The default umask.
const DEFAULT_UMASK: &str = "0022";

/// A container of the policy; field names are the policy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyContainer {
    pub(crate) command: Vec<String>,
    pub(crate) env_rules: Vec<PolicyEnvRule>,
    pub(crate) layers: Vec<String>,
    pub(crate) mounts: Vec<PolicyMount>,
    pub(crate) exec_processes: Vec<PolicyExecProcess>,
    pub(crate) signals: Vec<i32>,
    pub(crate) user: PolicyUser,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) seccomp_profile_sha256: String,
    pub(crate) allow_elevated: bool,
    pub(crate) working_dir: String,
    pub(crate) allow_stdio_access: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) confinement: Confinement,
}

/// A container of a policy for Windows guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyWindowsContainer {
    pub(crate) command: Vec<String>,
    pub(crate) env_rules: Vec<PolicyEnvRule>,
    pub(crate) layers: Vec<String>,
    pub(crate) mounted_cim: Vec<String>,
    pub(crate) exec_processes: Vec<(Vec<String>, Vec<String>)>,
    pub(crate) signals: Vec<String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
    pub(crate) allow_stdio_access: bool,
}

/// A rule on the whole entry, or on its name and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum PolicyEnvRule {
    Whole {
        pattern: String,
        strategy: &'static str,
        required: bool,
    },
    Parts {
        name: String,
        name_strategy: &'static str,
        value: String,
        value_strategy: &'static str,
        required: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyMount {
    pub(crate) destination: String,
    pub(crate) options: Vec<String>,
    pub(crate) source: String,
    /// Judged under `casemate_version` only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) required: bool,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyExecProcess {
    pub(crate) command: Vec<String>,
    pub(crate) signals: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyUser {
    pub(crate) user_idname: PolicyIdName,
    pub(crate) group_idnames: Vec<PolicyIdName>,
    pub(crate) umask: String,
}

/// A process outside containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyProcess {
    pub(crate) command: Vec<String>,
    pub(crate) env_rules: Vec<PolicyEnvRule>,
    pub(crate) working_dir: String,
    pub(crate) allow_stdio_access: bool,
}

/// The policy's container: the configuration, completed by the image and by defaults.
///
/// `warn` is told what a user should know of it.
pub(crate) fn resolve(
    container: &Container,
    place: &str,
    sources: &Sources<'_>,
    warn: &mut dyn FnMut(String),
) -> Result<PolicyContainer, GenerateError> {
    let source = source::find(container, place, sources, warn)?;
    source
        .notes
        .sentences()
        .into_iter()
        .for_each(|note| warn(format!("{place}: its layers have {note}")));
    let field = |problem: String| GenerateError::Field {
        place: place.to_owned(),
        problem,
    };
    let command = command(container, &source);
    if command.is_empty() {
        return Err(field("give a command: its image has neither ENTRYPOINT nor CMD".to_owned()));
    }
    let working_dir = working_dir(container, &source);
    if !working_dir.starts_with('/') {
        warn(format!(
            "{place}: the working directory {working_dir:?} is relative, and runtimes start processes in absolute ones only: \
             give working_dir, or mend the image's WORKDIR"
        ));
    }
    Ok(PolicyContainer {
        command,
        env_rules: env_rules(container, &source).map_err(field)?,
        mounts: mounts(container).map_err(field)?,
        exec_processes: container.exec_process.iter().map(exec_process).collect(),
        signals: signals(container, &source).map_err(field)?,
        user: match &container.user {
            Some(user) => configured_user(user).map_err(field)?,
            None => image_user(&source.image.user),
        },
        capabilities: container.capabilities.clone(),
        seccomp_profile_sha256: seccomp(container, place, sources.base_dir)?,
        allow_elevated: container.allow_elevated,
        working_dir,
        allow_stdio_access: container.allow_stdio_access,
        no_new_privileges: !container.allow_privilege_escalation,
        confinement: Confinement::of(container).map_err(field)?,
        layers: source.layers,
    })
}

/// The pause container, which every policy allows, as hcsshim's tool writes it.
pub(crate) fn pause() -> PolicyContainer {
    PolicyContainer {
        command: vec!["/pause".to_owned()],
        env_rules: vec![exactly(DEFAULT_PATH, true), exactly("TERM=xterm", false)],
        layers: vec![PAUSE_LAYER.to_owned()],
        mounts: Vec::new(),
        exec_processes: Vec::new(),
        signals: vec![9, 15],
        user: image_user(""),
        capabilities: None,
        seccomp_profile_sha256: String::new(),
        allow_elevated: true,
        working_dir: "/".to_owned(),
        allow_stdio_access: false,
        no_new_privileges: true,
        confinement: Confinement::default(),
    }
}

/// The pause container that is the guest's own: it has no layers, and nothing of what the host asks for it counts.
pub(crate) fn own_pause(pod: &Pod) -> PolicyContainer {
    let confinement = Confinement::default();
    PolicyContainer {
        env_rules: Vec::new(),
        layers: Vec::new(),
        capabilities: Some(Capabilities::default()),
        allow_elevated: false,
        confinement: if pod.share_process_namespace {
            confinement.sharing_processes()
        } else {
            confinement
        },
        ..pause()
    }
}

/// Adds what a pod's runtime gives each of its containers.
pub(crate) fn in_pod(mut container: PolicyContainer, pod: &Pod) -> PolicyContainer {
    container.env_rules.extend(POD_VARIABLES.map(|pattern| PolicyEnvRule::Whole {
        pattern: pattern.to_owned(),
        strategy: Strategy::Re2.as_str(),
        required: false,
    }));
    if pod.share_process_namespace {
        container.confinement = container.confinement.sharing_processes();
    }
    container
}

/// A process in the guest, with its fixed environment.
pub(crate) fn external(process: &ExternalProcess) -> PolicyProcess {
    PolicyProcess {
        command: process.command.clone(),
        env_rules: vec![exactly(DEFAULT_PATH, true)],
        working_dir: process.working_dir.clone(),
        allow_stdio_access: process.allow_stdio_access,
    }
}

fn command(container: &Container, source: &Source) -> Vec<String> {
    if !container.command.is_empty() {
        return container.command.clone();
    }
    [&source.image.entrypoint, &source.image.cmd]
        .into_iter()
        .flatten()
        .flatten()
        .cloned()
        .collect()
}

/// Those of the configuration, and the image's own stop signal where it is wanted.
fn signals(container: &Container, source: &Source) -> Result<Vec<i32>, String> {
    let mut signals = container.signals.clone();
    if container.allow_stop_signal {
        let stop = source
            .image
            .stop_signal()
            .map_err(|error| format!("{error}: give signals in a configuration"))?;
        signals.extend(stop.filter(|number| !container.signals.contains(number)));
    }
    Ok(signals)
}

fn working_dir(container: &Container, source: &Source) -> String {
    match (&container.working_dir, source.image.working_dir.as_str()) {
        (Some(configured), _) if !configured.is_empty() => configured.clone(),
        (_, "") => "/".to_owned(),
        (_, image) => image.to_owned(),
    }
}

fn env_rules(container: &Container, source: &Source) -> Result<Vec<PolicyEnvRule>, String> {
    if let Some(definition) = &container.definition {
        return defined_env_rules(definition, source);
    }
    let mut rules: Vec<_> = source.image.env.iter().flatten().map(|entry| exactly(entry, true)).collect();
    let has_path = source.image.env.iter().flatten().any(|entry| entry.starts_with("PATH="));
    if !source.has_image || container.allow_default_path && !has_path {
        // Without one in an image, container runtimes set it.
        rules.push(exactly(DEFAULT_PATH, false));
    }
    rules.push(exactly("TERM=xterm", false));
    for rule in &container.env_rule {
        rules.push(env_rule(rule)?);
    }
    Ok(rules)
}

/// The definition's rules, the image's variables of other names, and what is left of the definition's further rules.
fn defined_env_rules(definition: &Definition, source: &Source) -> Result<Vec<PolicyEnvRule>, String> {
    let name = |rule: &str| rule.split('=').next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = definition.env_rules.iter().map(|rule| name(&rule.rule)).collect();
    let mut rules: Vec<_> = definition.env_rules.iter().map(env_rule).collect::<Result<_, _>>()?;
    for entry in source.image.env.iter().flatten() {
        if !names.contains(&name(entry)) {
            rules.push(exactly(entry, false));
        }
    }
    names.extend(source.image.env.iter().flatten().map(|entry| name(entry)));
    let more = definition.more_env_rules.iter().filter(|rule| !names.contains(&name(&rule.rule)));
    rules.extend(more.map(env_rule).collect::<Result<Vec<_>, _>>()?);
    Ok(rules)
}

fn env_rule(rule: &EnvRule) -> Result<PolicyEnvRule, String> {
    let strategy = |strategy: Strategy, pattern: &str| {
        match strategy {
            Strategy::String => {}
            Strategy::Re2 => check_pattern(pattern)?,
            other => return Err(format!("env_rule {pattern:?}: strategy {} is for users and groups", other.as_str())),
        }
        Ok(strategy.as_str())
    };
    match &rule.name {
        None if rule.value.is_empty() => Ok(PolicyEnvRule::Whole {
            pattern: rule.rule.clone(),
            strategy: strategy(rule.strategy, &rule.rule)?,
            required: rule.required,
        }),
        Some(name) if rule.rule.is_empty() => Ok(PolicyEnvRule::Parts {
            name: name.clone(),
            name_strategy: strategy(rule.name_strategy, name)?,
            value: rule.value.clone(),
            value_strategy: strategy(rule.value_strategy, &rule.value)?,
            required: rule.required,
        }),
        _ => Err("env_rule: give either rule, or name and value".to_owned()),
    }
}

/// A container for a Windows guest.
pub(crate) fn windows(container: &WindowsContainer) -> Result<PolicyWindowsContainer, String> {
    if container.command.is_empty() {
        return Err("give a command".to_owned());
    }
    if container.layers.is_empty() {
        return Err("give its layers".to_owned());
    }
    Ok(PolicyWindowsContainer {
        command: container.command.clone(),
        env_rules: container.env_rule.iter().map(env_rule).collect::<Result<_, _>>()?,
        layers: container.layers.clone(),
        mounted_cim: container.mounted_cim.clone(),
        exec_processes: container
            .exec_process
            .iter()
            .map(|process| (vec![process.command.clone()], process.signals.clone()))
            .collect(),
        signals: container.signals.clone(),
        user: container.user.clone(),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        allow_stdio_access: container.allow_stdio_access,
    })
}

fn exactly(entry: &str, required: bool) -> PolicyEnvRule {
    PolicyEnvRule::Whole {
        pattern: entry.to_owned(),
        strategy: Strategy::String.as_str(),
        required,
    }
}

fn mounts(container: &Container) -> Result<Vec<PolicyMount>, String> {
    let exact = container
        .definition
        .iter()
        .flat_map(|definition| &definition.mounts)
        .map(exact_mount);
    container.mount.iter().map(mount).chain(exact).collect()
}

fn exact_mount(mount: &ExactMount) -> Result<PolicyMount, String> {
    check_pattern(&mount.source)?;
    Ok(PolicyMount {
        destination: mount.destination.clone(),
        options: mount.options.clone(),
        source: mount.source.clone(),
        required: false,
        kind: mount.kind.clone(),
    })
}

fn mount(mount: &Mount) -> Result<PolicyMount, String> {
    let Mount {
        host_path,
        container_path,
        readonly,
        required,
    } = mount;
    if container_path.is_empty() {
        return Err(format!("mount of {host_path:?} has no container_path"));
    }
    check_pattern(host_path)?;
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| host_path.starts_with(prefix));
    let propagation = if starts(&["sandbox://", "hugepages://"]) {
        "rshared"
    } else {
        "rprivate"
    };
    Ok(PolicyMount {
        destination: container_path.clone(),
        options: ["rbind", propagation, if *readonly { "ro" } else { "rw" }]
            .map(str::to_owned)
            .to_vec(),
        source: host_path.clone(),
        required: *required,
        kind: match starts(&["sandbox://", "hugepages://", "plan9://"]) {
            true => "bind".to_owned(),
            false => "none".to_owned(),
        },
    })
}

fn exec_process(process: &ExecProcess) -> PolicyExecProcess {
    PolicyExecProcess {
        command: process.command.clone(),
        signals: process.signals.clone(),
    }
}

fn configured_user(user: &User) -> Result<PolicyUser, String> {
    let id_name = |IdName { strategy, rule }: &IdName| {
        match strategy {
            Strategy::String => return Err(format!("user or group {rule:?}: strategy is any, id, name or re2")),
            Strategy::Re2 => check_pattern(rule)?,
            Strategy::Any | Strategy::Id | Strategy::Name => {}
        }
        Ok(PolicyIdName {
            pattern: rule.clone(),
            strategy: strategy.as_str(),
        })
    };
    Ok(PolicyUser {
        user_idname: id_name(&user.user_idname)?,
        group_idnames: user.group_idname.iter().map(id_name).collect::<Result<_, _>>()?,
        umask: if user.umask.is_empty() {
            DEFAULT_UMASK.to_owned()
        } else {
            user.umask.clone()
        },
    })
}

/// The image's USER: empty means any user, digits mean an id, anything else a name.
pub(crate) fn image_user(user: &str) -> PolicyUser {
    let any = || PolicyIdName {
        pattern: String::new(),
        strategy: Strategy::Any.as_str(),
    };
    let id_name = |text: &str| {
        let numeric = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let strategy = if numeric { Strategy::Id } else { Strategy::Name };
        PolicyIdName {
            pattern: text.to_owned(),
            strategy: strategy.as_str(),
        }
    };
    let (user_idname, group) = match user.split_once(':') {
        _ if user.is_empty() => (any(), any()),
        None => (id_name(user), any()),
        Some((user, group)) => (id_name(user), id_name(group)),
    };
    PolicyUser {
        user_idname,
        group_idnames: vec![group],
        umask: DEFAULT_UMASK.to_owned(),
    }
}

fn seccomp(container: &Container, place: &str, base_dir: &Path) -> Result<String, GenerateError> {
    let Some(path) = &container.seccomp_profile_path else {
        let defined = container
            .definition
            .as_ref()
            .map(|definition| definition.seccomp_profile_sha256.clone());
        return Ok(defined.unwrap_or_default());
    };
    let profile = file::read(&base_dir.join(path), MAX_SECCOMP_BYTES)?;
    policy::seccomp_digest(&profile).map_err(|source| GenerateError::Seccomp {
        place: place.to_owned(),
        source,
    })
}
