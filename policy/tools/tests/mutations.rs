//! For random configurations: the generated policy allows the configured container, denies each change of a single field of it,
//! and the explanation names that field.

use std::path::Path;

use policy::action::{
    Action, Capabilities, CreateContainer, Device, ExecExternal, ExecInContainer, GetProperties, IdName, Mount, MountDevice, MountOverlay,
    SignalContainerProcess,
};
use policy::{ContainerId, Enforcer, RootHash};
use policy_tools::{
    Config, Container, Document, EnvRule, ExecProcess, ExternalProcess, IdName as IdRule, Mount as MountRule, Strategy as Compare, User,
    check, explain, generate,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Number of generated configurations.
const CASES: u32 = 200;
/// Length at which kubelet truncates a message.
const CUT_BYTES: usize = 1024;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/_.<&'\"\\\\ -]{1,12}"
}

fn command() -> impl Strategy<Value = Vec<String>> {
    vec(word(), 1..4)
}

/// Rules, and for each an entry that it accepts.
fn env_rules() -> impl Strategy<Value = Vec<EnvRule>> {
    vec((0..3, any::<bool>(), "[a-z0-9=/]{0,8}"), 0..4).prop_map(|kinds| {
        let rules = kinds.into_iter().enumerate().map(|(index, (kind, required, value))| match kind {
            0 => EnvRule {
                rule: format!("VAR{index}={value}"),
                required,
                ..EnvRule::default()
            },
            1 => EnvRule {
                strategy: Compare::Re2,
                rule: format!("VAR{index}=[0-9]{{1,4}}"),
                required,
                ..EnvRule::default()
            },
            _ => EnvRule {
                name: Some(format!("VAR{index}")),
                value: "[0-9]+".to_owned(),
                value_strategy: Compare::Re2,
                required,
                ..EnvRule::default()
            },
        });
        rules.collect()
    })
}

fn mounts() -> impl Strategy<Value = Vec<MountRule>> {
    vec(
        (select(&["sandbox://", "hugepages://", ""][..]), "/[a-z]{1,6}", any::<bool>()),
        0..3,
    )
    .prop_map(|kinds| {
        let mounts = kinds.into_iter().enumerate().map(|(index, (prefix, path, readonly))| MountRule {
            host_path: format!("{prefix}{path}"),
            container_path: format!("/mnt/{index}"),
            readonly,
            required: false,
        });
        mounts.collect()
    })
}

fn id_rule() -> impl Strategy<Value = IdRule> {
    (select(&[Compare::Any, Compare::Id, Compare::Name, Compare::Re2][..]), Just(())).prop_map(|(strategy, ())| IdRule {
        strategy,
        rule: match strategy {
            Compare::Id => "1000".to_owned(),
            Compare::Name => "app".to_owned(),
            Compare::Re2 => "a(pp|lice)".to_owned(),
            _ => String::new(),
        },
    })
}

fn user() -> impl Strategy<Value = User> {
    (id_rule(), id_rule(), select(&["", "0022", "0077"][..])).prop_map(|(user_idname, group, umask)| User {
        umask: umask.to_owned(),
        user_idname,
        group_idname: vec![group],
    })
}

fn capabilities() -> impl Strategy<Value = policy_tools::Capabilities> {
    let names = policy::data::unprivileged_capabilities().bounding;
    subsequence(names, 1..8).prop_map(|names| policy_tools::Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..policy_tools::Capabilities::default()
    })
}

fn exec_processes() -> impl Strategy<Value = Vec<ExecProcess>> {
    vec(
        (command(), subsequence(vec![1, 2, 9, 15], 0..4)).prop_map(|(command, signals)| ExecProcess { command, signals }),
        0..3,
    )
}

fn container() -> impl Strategy<Value = Container> {
    let process = (command(), option::of("/[a-z]{1,8}"), env_rules(), mounts(), exec_processes());
    let rights = (
        option::of(user()),
        option::of(capabilities()),
        subsequence(vec![1, 2, 9, 15], 0..4),
        any::<[bool; 3]>(),
    );
    (process, rights, vec(any::<[u8; 32]>(), 1..4)).prop_map(|((command, working_dir, env_rule, mount, exec_process), rights, layers)| {
        let (user, capabilities, signals, [elevated, stdio, escalation]) = rights;
        Container {
            layers: layers.iter().map(|layer| RootHash::new(layer).to_string()).collect(),
            command,
            working_dir,
            allow_elevated: elevated,
            allow_stdio_access: stdio,
            allow_privilege_escalation: escalation,
            signals,
            env_rule,
            mount,
            exec_process,
            user,
            capabilities,
            ..Container::default()
        }
    })
}

fn config() -> impl Strategy<Value = Config> {
    let external = (command(), "/[a-z]{0,8}").prop_map(|(command, working_dir)| ExternalProcess {
        command,
        working_dir,
        allow_stdio_access: false,
    });
    (vec(container(), 1..4), vec(external, 0..2), any::<bool>()).prop_map(|(container, external_process, properties)| Config {
        allow_properties_access: properties,
        container,
        external_process,
        ..Config::default()
    })
}

fn id() -> ContainerId {
    ContainerId::new("subject")
}

fn directory() -> String {
    format!("/run/gcs/c/{}", id().as_hex())
}

fn entry(rule: &EnvRule) -> String {
    match (&rule.name, rule.strategy) {
        (Some(name), _) => format!("{name}=42"),
        (None, Compare::Re2) => rule.rule.replace("[0-9]{1,4}", "7"),
        (None, _) => rule.rule.clone(),
    }
}

fn mount(rule: &MountRule) -> Mount {
    let source = rule
        .host_path
        .replace("sandbox://", &format!("{}/sandboxMounts", directory()))
        .replace("hugepages://", &format!("{}/hugepages", directory()));
    let shared = rule.host_path.contains("://");
    Mount {
        destination: rule.container_path.clone(),
        options: Some(texts(&[
            "rbind",
            if shared { "rshared" } else { "rprivate" },
            if rule.readonly { "ro" } else { "rw" },
        ])),
        source,
        kind: if shared { "bind" } else { "none" }.to_owned(),
    }
}

/// The request that the configuration describes.
fn request(container: &Container) -> CreateContainer {
    let mut env_list = texts(&[PATH, "TERM=xterm"]);
    env_list.extend(container.env_rule.iter().map(entry));
    let mut mounts = vec![Mount {
        destination: "/proc".to_owned(),
        options: Some(texts(&["nosuid", "noexec", "nodev"])),
        source: "proc".to_owned(),
        kind: "proc".to_owned(),
    }];
    mounts.extend(container.mount.iter().map(mount));
    let capabilities = container
        .capabilities
        .as_ref()
        .map_or_else(policy::data::unprivileged_capabilities, |sets| Capabilities {
            ambient: sets.ambient.clone(),
            bounding: sets.bounding.clone(),
            effective: sets.effective.clone(),
            inheritable: sets.inheritable.clone(),
            permitted: sets.permitted.clone(),
        });
    let umask = container.user.as_ref().map_or("", |user| user.umask.as_str());
    CreateContainer {
        container_id: id(),
        arg_list: container.command.clone(),
        env_list,
        working_dir: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
        sandbox_dir: format!("{}/sandboxMounts", directory()),
        huge_pages_dir: format!("{}/hugepages", directory()),
        mounts,
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: true,
        user: IdName::new(1000, "app"),
        groups: vec![IdName::new(1000, "app")],
        umask: if umask.is_empty() { "0022" } else { umask }.to_owned(),
        capabilities: Some(capabilities),
        seccomp_profile_sha256: String::new(),
        is_sandbox_container: false,
    }
}

fn exec(container: &Container, process: &ExecProcess) -> ExecInContainer {
    let create = request(container);
    ExecInContainer {
        container_id: id(),
        arg_list: process.command.clone(),
        env_list: create.env_list,
        working_dir: create.working_dir,
        no_new_privileges: true,
        user: create.user,
        groups: create.groups,
        umask: create.umask,
        capabilities: create.capabilities,
    }
}

/// Requests with one changed field, each with the policy's name of the field.
fn changed_creations(container: &Container) -> Vec<(&'static str, CreateContainer)> {
    let base = request(container);
    let mut changes: Vec<(&'static str, CreateContainer)> = Vec::new();
    let mut add = |field: &'static str, change: &dyn Fn(&mut CreateContainer)| {
        let mut changed = base.clone();
        change(&mut changed);
        changes.push((field, changed));
    };
    add("command", &|c| c.arg_list.push("more".to_owned()));
    add("command", &|c| c.arg_list = texts(&["/bin/sh"]));
    add("env_rules", &|c| c.env_list.push("EVIL=1".to_owned()));
    add("working_dir", &|c| c.working_dir.push_str("/evil"));
    add("seccomp_profile_sha256", &|c| c.seccomp_profile_sha256 = "0f".repeat(32));
    add("capabilities", &|c| {
        c.capabilities.get_or_insert_default().ambient.push("CAP_SYS_ADMIN".to_owned())
    });
    add("capabilities", &|c| {
        c.capabilities.get_or_insert_default().bounding.pop();
    });
    add("user", &|c| c.umask = "0000".to_owned());
    add("devices", &|c| {
        c.devices.push(Device {
            path: "/dev/kvm".to_owned(),
            kind: "c".to_owned(),
            major: 10,
            minor: 232,
            file_mode: None,
            uid: None,
            gid: None,
        });
    });
    if !container.allow_elevated {
        add("allow_elevated", &|c| c.privileged = true);
    }
    if !container.allow_privilege_escalation {
        add("no_new_privileges", &|c| c.no_new_privileges = false);
    }
    if let Some(user) = &container.user {
        if user.user_idname.strategy != Compare::Any {
            add("user", &|c| c.user = IdName::new(0, "root"));
        }
        if user.group_idname[0].strategy != Compare::Any {
            add("user", &|c| c.groups.push(IdName::new(0, "root")));
        }
    }
    for (index, rule) in container.env_rule.iter().enumerate() {
        let place = index + 2;
        add("env_rules", &|c| c.env_list[place].push_str("evil"));
        if rule.required {
            add("env_rules", &|c| {
                c.env_list.remove(place);
            });
        }
    }
    for index in 0..container.mount.len() {
        let place = index + 1;
        add("mounts", &|c| c.mounts[place].source.push_str("/evil"));
        add("mounts", &|c| c.mounts[place].destination = "/evil".to_owned());
        add("mounts", &|c| c.mounts[place].kind = "tmpfs".to_owned());
        add("mounts", &|c| {
            let options = c.mounts[place].options.get_or_insert_default();
            let last = options.last_mut().unwrap();
            *last = if last.as_str() == "ro" { "rw" } else { "ro" }.to_owned();
        });
    }
    add("mounts", &|c| c.mounts[0].destination = "/evil".to_owned());
    changes
}

fn changed_execs(container: &Container) -> Vec<(&'static str, ExecInContainer)> {
    let Some(process) = container.exec_process.first() else {
        return Vec::new();
    };
    let base = exec(container, process);
    let mut changes: Vec<(&'static str, ExecInContainer)> = Vec::new();
    let mut add = |field: &'static str, change: &dyn Fn(&mut ExecInContainer)| {
        let mut changed = base.clone();
        change(&mut changed);
        changes.push((field, changed));
    };
    add("exec_processes", &|e| e.arg_list.push("more".to_owned()));
    add("env_rules", &|e| e.env_list.push("EVIL=1".to_owned()));
    add("working_dir", &|e| e.working_dir.push_str("/evil"));
    add("capabilities", &|e| {
        e.capabilities.get_or_insert_default().ambient.push("CAP_SYS_ADMIN".to_owned())
    });
    add("user", &|e| e.umask = "0000".to_owned());
    if !container.allow_privilege_escalation {
        add("no_new_privileges", &|e| e.no_new_privileges = false);
    }
    if container
        .user
        .as_ref()
        .is_some_and(|user| user.user_idname.strategy != Compare::Any)
    {
        add("user", &|e| e.user = IdName::new(0, "root"));
    }
    changes
}

struct Judge {
    enforcer: Enforcer,
    document: Document,
}

impl Judge {
    fn allowed<A: Action>(&mut self, action: A) {
        match self.enforcer.enforce(action) {
            Ok(permit) => permit.commit(),
            Err(denied) => panic!("the configured request is denied: {denied}"),
        }
    }

    /// Checks that the request is denied and explained by `field`, even if the message is cut.
    fn denied<A: Action>(&mut self, field: &str, action: A) {
        let denied = match self.enforcer.enforce(action) {
            Ok(_) => panic!("a change of {field} is allowed"),
            Err(denied) => denied,
        };
        let message = format!("rpc error: code = PermissionDenied desc = {denied}: unknown");
        let explained = explain(&message, Some(&self.document)).unwrap();
        assert!(
            explained.fields.iter().any(|named| named == field),
            "{field} is not named: {denied}\n{explained}"
        );
        assert_eq!(explained.rule.as_deref(), Some(A::POINT));
        let mut cut = CUT_BYTES.min(message.len());
        while !message.is_char_boundary(cut) {
            cut -= 1;
        }
        let explained = explain(&message[..cut], Some(&self.document)).unwrap();
        assert!(
            explained.fields.iter().any(|named| named == field),
            "{field} is not named when cut: {denied}\n{explained}"
        );
    }
}

fn judge_container(judge: &mut Judge, container: &Container) {
    let layer = |index: usize| format!("/run/mounts/scsi/m{index}");
    judge.denied("layers", MountDevice::new(layer(99), RootHash::new(&[0xee; 32])));
    for (index, hash) in container.layers.iter().enumerate() {
        let mut bytes = [0; 32];
        hex(hash, &mut bytes);
        judge.allowed(MountDevice::new(layer(index), RootHash::new(&bytes)));
    }
    let order: Vec<String> = (0..container.layers.len()).rev().map(layer).collect();
    let overlay = |layer_paths: Vec<String>| MountOverlay {
        container_id: id(),
        layer_paths,
        target: format!("{}/rootfs", directory()),
    };
    if order.len() > 1 {
        judge.denied("layers", overlay(order.iter().rev().cloned().collect()));
        judge.denied("layers", overlay(order[1..].to_vec()));
    }
    judge.allowed(overlay(order));
    for (field, action) in changed_creations(container) {
        judge.denied(field, action);
    }
    judge.allowed(request(container));
    for (field, action) in changed_execs(container) {
        judge.denied(field, action);
    }
    for process in &container.exec_process {
        judge.allowed(exec(container, process));
    }
    let signal = |signal, process: Option<&ExecProcess>| SignalContainerProcess {
        container_id: id(),
        signal,
        is_init_process: process.is_none(),
        arg_list: Some(process.map_or(&container.command, |process| &process.command).clone()),
    };
    judge.denied("signals", signal(31, None));
    container.signals.iter().for_each(|number| judge.allowed(signal(*number, None)));
    for process in &container.exec_process {
        judge.denied("signals", signal(31, Some(process)));
    }
}

fn hex(text: &str, bytes: &mut [u8; 32]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap();
    }
}

fn judge_process(judge: &mut Judge, process: &ExternalProcess) {
    let base = ExecExternal {
        arg_list: process.command.clone(),
        env_list: texts(&[PATH]),
        working_dir: process.working_dir.clone(),
    };
    judge.allowed(base.clone());
    let mut changed = base.clone();
    changed.arg_list.push("more".to_owned());
    judge.denied("command", changed);
    let mut changed = base.clone();
    changed.env_list.push("EVIL=1".to_owned());
    judge.denied("env_rules", changed);
    let mut changed = base.clone();
    changed.env_list.clear();
    judge.denied("env_rules", changed);
    let mut changed = base;
    changed.working_dir.push_str("/evil");
    judge.denied("working_dir", changed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_configured_is_allowed_and_every_single_change_is_denied_and_named(config in config()) {
        let text = generate(&config, Path::new("")).unwrap();
        let document = Document::read(&text).unwrap();
        let errors: Vec<_> = check(&document).into_iter().filter(|finding| finding.severity == policy_tools::Severity::Error).collect();
        prop_assert!(errors.is_empty(), "{errors:?}");
        let mut judge = Judge { enforcer: Enforcer::new(&text).unwrap(), document };
        judge_container(&mut judge, &config.container[0]);
        if let Some(process) = config.external_process.first() {
            judge_process(&mut judge, process);
        }
        if config.allow_properties_access {
            judge.allowed(GetProperties {});
        } else {
            judge.denied("allow_properties_access", GetProperties {});
        }
    }
}
