//! The file of `acipolicygen --input`, in version 1 and in the flat form before it.

use super::refused;
use crate::GenerateError;
use crate::config::{Capabilities, Config, Container, Definition, EnvRule, ExactMount, ExecProcess, Fragment, IdName, Strategy, User};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

/// Signals of a container, as the peer's newest releases allow them.
const END: [i32; 2] = [9, 15];
/// Where a volume of each type is in the guest.
const VOLUMES: [(&str, &str); 6] = [
    ("azurefile", "sandbox:///tmp/atlas/azureFileVolume/.+"),
    ("secret", "sandbox:///tmp/atlas/secretsVolume/.+"),
    ("secretssource", "plan9://"),
    ("emptydir", "sandbox:///tmp/atlas/emptydir/.+"),
    ("resolvconf", "sandbox:///tmp/atlas/resolvconf/.+"),
    ("gitrepo", "sandbox:///tmp/atlas/gitRepoVolume/.+"),
];
/// Where the files of `configMap` are.
const CONFIG_MAP: &str = "/mnt/configmap";
/// Variables that every container may have, by patterns of name and value; a definition's own of the same name goes before them.
const VARIABLES: [(&str, &str, Strategy); 10] = [
    ("TERM", "xterm", Strategy::String),
    ("(?i)(FABRIC)_.+", ".+", Strategy::Re2),
    ("HOSTNAME", ".+", Strategy::Re2),
    ("T(E)?MP", ".+", Strategy::Re2),
    ("FabricPackageFileName", ".+", Strategy::Re2),
    ("HostedServiceName", ".+", Strategy::Re2),
    ("IDENTITY_API_VERSION", ".+", Strategy::Re2),
    ("IDENTITY_HEADER", ".+", Strategy::Re2),
    ("IDENTITY_SERVER_THUMBPRINT", ".+", Strategy::Re2),
    ("azurecontainerinstance_restarted_by", ".+", Strategy::Re2),
];

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    scenario: Option<String>,
    #[serde(default)]
    containers: Option<Vec<Value>>,
    #[serde(default)]
    fragments: Option<Vec<Import>>,
    #[serde(default)]
    allowhostnetwork: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    issuer: String,
    feed: String,
    minimum_svn: String,
    includes: Vec<String>,
    /// A file of the signer's, which does not matter here.
    #[serde(default, rename = "path")]
    _path: Option<String>,
}

/// Version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// For people, as the policy has no names.
    #[serde(default, rename = "name")]
    _name: Option<String>,
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Properties {
    image: Option<String>,
    environmentvariables: Option<Vec<Variable>>,
    command: Option<Vec<String>>,
    workingdir: Option<String>,
    volumemounts: Option<Vec<Volume>>,
    execprocesses: Option<Vec<Process>>,
    livenessprobe: Option<Probe>,
    readinessprobe: Option<Probe>,
    securitycontext: Option<SecurityContext>,
    signals: Option<Vec<i32>>,
    allowstdioaccess: Option<bool>,
    configmap: Option<Value>,
}

/// The flat form.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Flat {
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
    containerimage: Option<String>,
    environmentvariables: Option<Vec<Variable>>,
    command: Option<Vec<String>>,
    workingdir: Option<String>,
    mounts: Option<Vec<Volume>>,
    wait_mount_points: Option<Vec<String>>,
    allow_elevated: Option<bool>,
    securitycontext: Option<SecurityContext>,
    execprocesses: Option<Processes>,
    livenessprobe: Option<Probe>,
    readinessprobe: Option<Probe>,
    signals: Option<Vec<i32>>,
    allowstdioaccess: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    securevalue: Option<String>,
    #[serde(default)]
    strategy: Option<Strategy>,
    #[serde(default)]
    regex: Option<bool>,
    #[serde(default)]
    required: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Volume {
    #[serde(default, rename = "name")]
    _name: Option<String>,
    mounttype: String,
    mountpath: String,
    #[serde(default)]
    readonly: Option<bool>,
    #[serde(default)]
    options: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    command: Vec<String>,
    #[serde(default)]
    signals: Option<Vec<i32>>,
    /// Not judged for each process.
    #[serde(default, rename = "allow_stdio_access")]
    _allow_stdio_access: Option<bool>,
}

/// One command, or a list of processes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Processes {
    One(Vec<String>),
    Several(Vec<Process>),
}

/// A probe; only commands matter, and its times do not.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    exec: Option<ProbeCommand>,
}

#[derive(Deserialize)]
struct ProbeCommand {
    command: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SecurityContext {
    privileged: Option<Flag>,
    allowprivilegeescalation: Option<Flag>,
    runasuser: Option<u32>,
    runasgroup: Option<u32>,
    runasnonroot: Option<bool>,
    readonlyrootfilesystem: Option<bool>,
    capabilities: Option<CapabilityChanges>,
    seccompprofile: Option<Seccomp>,
}

/// A flag, which templates write as a text too.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CapabilityChanges {
    add: Option<Vec<String>>,
    drop: Option<Vec<String>>,
}

/// A profile's JSON in base64, or its kind alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seccomp {
    Profile(String),
    Kind {
        #[serde(rename = "type")]
        kind: String,
    },
}

impl Flag {
    fn is_set(&self) -> bool {
        match self {
            Self::Bool(set) => *set,
            Self::Text(text) => text.eq_ignore_ascii_case("true"),
        }
    }
}

/// The configuration of a file.
pub(super) fn config(document: Value) -> Result<Config, GenerateError> {
    let file: File = serde_json::from_value(document).map_err(|error| refused("", error))?;
    if let Some(version) = file.version.as_deref().filter(|version| *version != "1.0") {
        return Err(refused("", format!("version {version:?} is unknown: there is \"1.0\"")));
    }
    if let Some(scenario) = file.scenario.as_deref().filter(|scenario| !scenario.eq_ignore_ascii_case("aci")) {
        let problem = format!("scenario {scenario:?} stands for what Azure adds to a container by itself: leave it out, and list it here");
        return Err(refused("", problem));
    }
    let containers = file.containers.unwrap_or_default();
    let fragments = file.fragments.unwrap_or_default();
    if containers.is_empty() && fragments.is_empty() {
        return Err(refused("", "there is neither a container nor a fragment"));
    }
    let mut config = Config {
        // The peer's own defaults.
        allow_properties_access: true,
        allow_environment_variable_dropping: true,
        allow_capability_dropping: true,
        allow_hostnetwork: file.allowhostnetwork,
        fragment: fragments.into_iter().map(fragment).collect(),
        ..Config::default()
    };
    for (index, value) in containers.into_iter().enumerate() {
        let place = place(index, &value);
        let flat = value.get("containerimage").is_some();
        let parsed = match flat {
            true => serde_json::from_value(value).map(|flat: Flat| flat.into_named(&place, &mut config.notes)),
            false => serde_json::from_value(value),
        };
        let named = parsed.map_err(|error| refused(&place, error))?;
        config
            .container
            .push(container(named, &place, &mut config.notes).map_err(|problem| refused(&place, problem))?);
    }
    Ok(config)
}

/// How messages call a container.
fn place(index: usize, value: &Value) -> String {
    let number = index + 1;
    match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("container {number} ({})", name.chars().take(80).collect::<String>()),
        None => format!("container {number}"),
    }
}

fn fragment(import: Import) -> Fragment {
    Fragment {
        issuer: import.issuer,
        feed: import.feed,
        minimum_svn: import.minimum_svn,
        include: import.includes,
        ..Fragment::default()
    }
}

impl Flat {
    /// The same in version 1, by the peer's `convert_config_v0_to_v1`: a mount is read-only unless it says otherwise.
    fn into_named(self, place: &str, notes: &mut Vec<String>) -> Named {
        if self.wait_mount_points.is_some_and(|points| !points.is_empty()) {
            notes.push(format!("{place}: wait_mount_points is of no effect: no policy judges it any more"));
        }
        let mut security = self.securitycontext;
        if let Some(elevated) = self.allow_elevated {
            security.get_or_insert_default().privileged = Some(Flag::Bool(elevated));
        }
        let read_only = |mut mount: Volume| {
            mount.readonly.get_or_insert(true);
            mount
        };
        Named {
            _name: self._name,
            properties: Properties {
                image: self.containerimage,
                environmentvariables: self.environmentvariables,
                command: self.command,
                workingdir: self.workingdir,
                volumemounts: self.mounts.map(|mounts| mounts.into_iter().map(read_only).collect()),
                execprocesses: self.execprocesses.map(|processes| match processes {
                    Processes::One(command) if command.is_empty() => Vec::new(),
                    Processes::One(command) => vec![Process {
                        command,
                        signals: None,
                        _allow_stdio_access: None,
                    }],
                    Processes::Several(processes) => processes,
                }),
                livenessprobe: self.livenessprobe,
                readinessprobe: self.readinessprobe,
                securitycontext: security,
                signals: self.signals,
                allowstdioaccess: self.allowstdioaccess,
                configmap: None,
            },
        }
    }
}

fn container(named: Named, place: &str, notes: &mut Vec<String>) -> Result<Container, String> {
    let Properties {
        image,
        environmentvariables,
        command,
        workingdir,
        volumemounts,
        execprocesses,
        livenessprobe,
        readinessprobe,
        securitycontext,
        signals,
        allowstdioaccess,
        configmap,
    } = named.properties;
    let image = image.filter(|image| !image.is_empty()).ok_or("give its image")?;
    if let Some(relative) = workingdir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/')) {
        return Err(format!("workingDir {relative:?} is not absolute"));
    }
    let security = securitycontext.unwrap_or_default();
    for (set, key) in [
        (security.runasnonroot == Some(true), "runAsNonRoot"),
        (security.readonlyrootfilesystem == Some(true), "readOnlyRootFilesystem"),
    ] {
        if set {
            notes.push(format!("{place}: {key} is of no effect: policies of this form do not judge it"));
        }
    }
    let mut mounts: Vec<ExactMount> = volumemounts.into_iter().flatten().map(mount).collect::<Result<_, _>>()?;
    if configmap.is_some_and(|map| !map.is_null()) {
        mounts.push(bind(volume("emptyDir")?, CONFIG_MAP, false));
    }
    mounts.push(bind(volume("resolvconf")?, "/etc/resolv.conf", false));
    let probes = [readinessprobe, livenessprobe].into_iter().flatten().filter_map(|probe| probe.exec);
    let processes = execprocesses.into_iter().flatten().map(|process| ExecProcess {
        command: process.command,
        signals: process.signals.unwrap_or_default(),
    });
    let privileged = security.privileged.as_ref().is_some_and(Flag::is_set);
    Ok(Container {
        command: command.unwrap_or_default(),
        working_dir: workingdir,
        exec_process: processes
            .chain(probes.map(|probe| ExecProcess {
                command: probe.command,
                signals: Vec::new(),
            }))
            .collect(),
        allow_elevated: privileged,
        allow_privilege_escalation: security.allowprivilegeescalation.as_ref().is_none_or(Flag::is_set),
        allow_stdio_access: allowstdioaccess.unwrap_or(true),
        allow_stop_signal: true,
        signals: signals.unwrap_or_else(|| END.to_vec()),
        user: user(&security),
        capabilities: Some(capabilities(security.capabilities.unwrap_or_default(), privileged)),
        definition: Some(Definition {
            env_rules: environmentvariables.into_iter().flatten().map(variable).collect(),
            more_env_rules: VARIABLES
                .iter()
                .map(|(name, value, strategy)| rule(name, value, *strategy, false))
                .collect(),
            mounts,
            seccomp_profile_sha256: seccomp(security.seccompprofile)?,
        }),
        image_name: Some(image),
        ..Container::default()
    })
}

fn variable(variable: Variable) -> EnvRule {
    let value = variable.value.filter(|value| !value.is_empty()).or(variable.securevalue);
    let by_flag = if variable.regex == Some(true) {
        Strategy::Re2
    } else {
        Strategy::String
    };
    rule(
        &variable.name,
        &value.unwrap_or_default(),
        variable.strategy.unwrap_or(by_flag),
        variable.required.unwrap_or(false),
    )
}

fn rule(name: &str, value: &str, strategy: Strategy, required: bool) -> EnvRule {
    EnvRule {
        strategy,
        rule: format!("{name}={value}"),
        required,
        ..EnvRule::default()
    }
}

fn volume(kind: &str) -> Result<&'static str, String> {
    let found = VOLUMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(kind));
    found.map(|(_, source)| *source).ok_or_else(|| {
        let known: Vec<_> = VOLUMES.iter().map(|(known, _)| *known).collect();
        format!("mountType {kind:?} is unknown: there are {} (in any case)", known.join(", "))
    })
}

fn bind(source: &str, destination: &str, read_only: bool) -> ExactMount {
    ExactMount {
        destination: destination.to_owned(),
        options: ["rbind", "rshared", if read_only { "ro" } else { "rw" }]
            .map(str::to_owned)
            .to_vec(),
        source: source.to_owned(),
        kind: "bind".to_owned(),
    }
}

fn mount(mount: Volume) -> Result<ExactMount, String> {
    let mut bind = bind(volume(&mount.mounttype)?, &mount.mountpath, mount.readonly.unwrap_or(false));
    if let Some(options) = mount.options.filter(|options| !options.is_empty()) {
        bind.options = options;
    }
    Ok(bind)
}

fn user(security: &SecurityContext) -> Option<User> {
    if security.runasuser.is_none() && security.runasgroup.is_none() {
        return None;
    }
    let id = |id: Option<u32>| {
        id.map_or_else(IdName::default, |id| IdName {
            strategy: Strategy::Id,
            rule: id.to_string(),
        })
    };
    Some(User {
        user_idname: id(security.runasuser),
        group_idname: vec![id(security.runasgroup)],
        ..User::default()
    })
}

/// The default sets with changes; each set is sorted, and names are there once.
fn capabilities(changes: CapabilityChanges, privileged: bool) -> Capabilities {
    let defaults = match privileged {
        true => policy::data::privileged_capabilities().bounding,
        false => policy::data::unprivileged_capabilities().bounding,
    };
    let mut set: Vec<String> = defaults.into_iter().chain(changes.add.unwrap_or_default()).collect();
    let drop = changes.drop.unwrap_or_default();
    set.retain(|name| !drop.contains(name));
    set.sort_unstable();
    set.dedup();
    Capabilities {
        bounding: set.clone(),
        effective: set.clone(),
        inheritable: if privileged { set.clone() } else { Vec::new() },
        permitted: set,
        ambient: Vec::new(),
    }
}

fn seccomp(profile: Option<Seccomp>) -> Result<String, String> {
    let text = match profile {
        None => return Ok(String::new()),
        Some(Seccomp::Kind { kind }) if kind == "Localhost" => {
            return Err("seccompProfile of type Localhost names a file of a node: give the profile itself in base64".to_owned());
        }
        Some(Seccomp::Kind { .. }) => return Ok(String::new()),
        Some(Seccomp::Profile(text)) => text,
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim());
    let bytes = bytes.map_err(|error| format!("seccompProfile is not base64: {error}"))?;
    policy::seccomp_digest(&bytes).map_err(|error| format!("seccompProfile: {error}"))
}
