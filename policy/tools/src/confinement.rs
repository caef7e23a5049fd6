//! Rules for Casemate's own points, from the configuration: a container's confinement and ports, the guest's networks and pulls.

use std::collections::BTreeMap;

use policy::CASEMATE_VERSION;
use serde::Serialize;

use crate::GenerateError;
use crate::config::{Bounds, Config, Container, Limit, Network, Rlimit, Strategy, TextRule};
use crate::json::json;
use crate::rule::{PolicyIdName, check_pattern};

/// Namespaces that a container may share with its pod.
const POD_NAMESPACES: &[&str] = &["network", "ipc", "uts", "pid"];

/// Limits that a host may set (cgroup-v2.rst).
const LIMITS: &[&str] = &["memory.max", "memory.low", "cpu.weight", "cpu.max", "pids.max"];

/// A container's confinement; a missing field has the framework's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
    pod_namespaces: Option<Vec<String>>,
    rlimits: Vec<PolicyRlimit>,
    sysctls: BTreeMap<String, String>,
    forwarded_ports: Vec<u16>,
    readonly_root: bool,
    allow_pause: bool,
    allow_reports: bool,
    oom_score_adj: Option<Bounds<i32>>,
    limits: BTreeMap<String, Bounds<u64>>,
    required_mounts: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PolicyRlimit {
    hard: u64,
    soft: u64,
    #[serde(rename = "type")]
    kind: String,
}

/// A network; field names are the policy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyNetwork {
    addresses: Vec<PolicyIdName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    nameservers: Vec<PolicyIdName>,
    routes: Vec<PolicyIdName>,
}

/// Rules for lines of the pod's files; field names are the policy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyPodLines {
    hostname: Vec<PolicyIdName>,
    hosts: Vec<PolicyIdName>,
    resolv_conf: Vec<PolicyIdName>,
}

impl Confinement {
    /// Of a pod's containers: the same, but that the pod's processes may be theirs, if they say nothing else.
    pub(crate) fn sharing_processes(mut self) -> Self {
        let all = || POD_NAMESPACES.iter().map(|kind| (*kind).to_owned()).collect();
        self.pod_namespaces.get_or_insert_with(all);
        self
    }

    /// Validates a container's keys.
    pub(crate) fn of(container: &Container) -> Result<Self, String> {
        for (key, paths) in [
            ("masked_paths", &container.masked_paths),
            ("readonly_paths", &container.readonly_paths),
        ] {
            if let Some(path) = paths.iter().flatten().find(|path| !path.starts_with('/')) {
                return Err(format!("{key}: {path:?} is not absolute"));
            }
        }
        if let Some(kind) = container
            .pod_namespaces
            .iter()
            .flatten()
            .find(|kind| !POD_NAMESPACES.contains(&kind.as_str()))
        {
            return Err(format!(
                "pod_namespaces: {kind:?} is not a namespace that a pod shares: {}",
                POD_NAMESPACES.join(", ")
            ));
        }
        if container.forwarded_ports.contains(&0) {
            return Err("forwarded_ports: 0 is not a port".to_owned());
        }
        if let Some(name) = container.limits.keys().find(|name| !LIMITS.contains(&name.as_str())) {
            return Err(format!("limits: {name:?} is not one of {}", LIMITS.join(", ")));
        }
        Ok(Self {
            masked_paths: container.masked_paths.clone(),
            readonly_paths: container.readonly_paths.clone(),
            pod_namespaces: container.pod_namespaces.clone(),
            rlimits: container.rlimit.iter().map(rlimit).collect::<Result<_, _>>()?,
            sysctls: container.sysctls.clone(),
            forwarded_ports: container.forwarded_ports.clone(),
            readonly_root: container.readonly_root,
            allow_pause: container.allow_pause,
            allow_reports: container.allow_reports,
            oom_score_adj: container.oom_score_adj,
            limits: container.limits.clone(),
            required_mounts: container.mount.iter().any(|mount| mount.required),
        })
    }

    /// Fields of the policy's container, in the order of the text.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let list = |list: &Option<Vec<String>>| list.as_ref().map(json);
        [
            ("masked_paths", list(&self.masked_paths)),
            ("readonly_paths", list(&self.readonly_paths)),
            ("pod_namespaces", list(&self.pod_namespaces)),
            ("rlimits", (!self.rlimits.is_empty()).then(|| json(&self.rlimits))),
            ("sysctls", (!self.sysctls.is_empty()).then(|| json(&self.sysctls))),
            (
                "forwarded_ports",
                (!self.forwarded_ports.is_empty()).then(|| json(&self.forwarded_ports)),
            ),
            ("readonly_root", self.readonly_root.then(|| json(&true))),
            ("allow_pause", self.allow_pause.then(|| json(&true))),
            ("allow_reports", self.allow_reports.then(|| json(&true))),
            ("oom_score_adj", self.oom_score_adj.as_ref().map(json)),
            ("limits", (!self.limits.is_empty()).then(|| json(&self.limits))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

fn rlimit(limit: &Rlimit) -> Result<PolicyRlimit, String> {
    let Rlimit { kind, soft, hard } = limit;
    let value = |limit: &Limit| match limit {
        Limit::Number(number) => *number,
        Limit::Word(_) => u64::MAX,
    };
    let (soft, hard) = (value(soft), value(hard));
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase());
    if !kind.strip_prefix("RLIMIT_").is_some_and(plain) {
        return Err(format!("rlimit: {kind:?} is not a resource such as RLIMIT_NOFILE"));
    }
    if soft > hard {
        return Err(format!("rlimit {kind}: soft is above hard"));
    }
    Ok(PolicyRlimit {
        hard,
        soft,
        kind: kind.clone(),
    })
}

/// Checks that the engine supports the configuration's version.
pub(crate) fn check_version(config: &Config) -> Result<(), GenerateError> {
    match &config.casemate_version {
        Some(version) if version != CASEMATE_VERSION => Err(field(
            "casemate_version",
            format!("{version:?} is not supported; the version is {CASEMATE_VERSION:?}"),
        )),
        _ => Ok(()),
    }
}

/// A pod's rules for its files; none without `casemate_version`, where they are not judged.
pub(crate) fn pod_lines(config: &Config) -> Result<Option<PolicyPodLines>, GenerateError> {
    let Some(pod) = &config.pod else { return Ok(None) };
    let given = pod.hosts.is_some() || pod.hostname.is_some() || pod.resolv_conf.is_some() || pod.share_process_namespace;
    match (&config.casemate_version, given) {
        (None, true) => return Err(field("pod", "its keys need casemate_version".to_owned())),
        (None, false) => return Ok(None),
        (Some(_), _) => {}
    }
    let rules = |key: &str, rules: &Option<Vec<TextRule>>| {
        let rules = rules.as_deref().unwrap_or(&ANY);
        let rules = rules.iter().map(text_rule).collect::<Result<Vec<_>, _>>();
        rules.map_err(|problem| field(&format!("pod.{key}"), problem))
    };
    Ok(Some(PolicyPodLines {
        hostname: rules("hostname", &pod.hostname)?,
        hosts: rules("hosts", &pod.hosts)?,
        resolv_conf: rules("resolv_conf", &pod.resolv_conf)?,
    }))
}

/// The rule that everything fits.
static ANY: [TextRule; 1] = [TextRule {
    strategy: Strategy::Any,
    rule: String::new(),
}];

/// The networks of the configuration; of a pod without one, any.
pub(crate) fn networks(config: &Config) -> Result<Vec<PolicyNetwork>, GenerateError> {
    if config.casemate_version.is_none() && !config.network.is_empty() {
        let problem = "networks need casemate_version";
        return Err(field("network 1", problem.to_owned()));
    }
    if config.pod.is_some() && config.casemate_version.is_some() && config.network.is_empty() {
        let any = Network {
            interface: None,
            address: ANY.to_vec(),
            route: ANY.to_vec(),
            nameserver: ANY.to_vec(),
        };
        return Ok(vec![network(&any).map_err(|problem| field("network", problem))?]);
    }
    let numbered = config.network.iter().enumerate();
    numbered
        .map(|(index, given)| network(given).map_err(|problem| field(&format!("network {}", index + 1), problem)))
        .collect()
}

/// The images that the guest may pull.
pub(crate) fn pulls(config: &Config) -> Result<Vec<PolicyIdName>, GenerateError> {
    let numbered = config.pull.iter().enumerate();
    numbered
        .map(|(index, rule)| text_rule(rule).map_err(|problem| field(&format!("pull {}", index + 1), problem)))
        .collect()
}

fn network(network: &Network) -> Result<PolicyNetwork, String> {
    let rules = |rules: &[TextRule]| rules.iter().map(text_rule).collect::<Result<Vec<_>, _>>();
    Ok(PolicyNetwork {
        addresses: rules(&network.address)?,
        interface: network.interface.clone(),
        nameservers: rules(&network.nameserver)?,
        routes: rules(&network.route)?,
    })
}

fn text_rule(TextRule { strategy, rule }: &TextRule) -> Result<PolicyIdName, String> {
    match strategy {
        Strategy::String | Strategy::Any => {}
        Strategy::Re2 => check_pattern(rule)?,
        other => return Err(format!("rule {rule:?}: strategy {} is for users and groups", other.as_str())),
    }
    Ok(PolicyIdName {
        pattern: rule.clone(),
        strategy: strategy.as_str(),
    })
}

fn field(place: &str, problem: String) -> GenerateError {
    GenerateError::Field {
        place: place.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
