//! What runs on the guest's own root file system: the pause program, whatever the host's document asks to run.

use container_document::{CapabilitySets, HostSpec, MountEntry, ProcessSpec, User};

use super::{
    confinement::{MASKED, READONLY},
    spec::{CONTEXT, PRIVILEGED},
};

/// The program in that root file system.
pub const PROGRAM: &str = "/pause";
/// Nobody's, without a name in any file.
const USER: u32 = 65535;

/// The document with everything that the program needs none of replaced by fixed values. Host name, namespaces, parameters of the kernel
/// and limits are the pod's and stay.
pub fn document(mut spec: HostSpec) -> HostSpec {
    let user = User {
        uid: USER,
        gid: USER,
        ..User::default()
    };
    spec.process = ProcessSpec {
        terminal: false,
        user,
        args: vec![PROGRAM.to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        capabilities: Some(CapabilitySets::default()),
        rlimits: Vec::new(),
        no_new_privileges: true,
        oom_score_adj: spec.process.oom_score_adj,
        apparmor_profile: String::new(),
        selinux_label: String::new(),
    };
    spec.root.get_or_insert_default().readonly = true;
    spec.mounts = vec![
        MountEntry::new("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        MountEntry::new("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ];
    spec.linux.devices.clear();
    spec.linux.seccomp = None;
    spec.linux.masked_paths = MASKED.map(str::to_owned).to_vec();
    spec.linux.readonly_paths = READONLY.map(str::to_owned).to_vec();
    spec.annotations.remove(PRIVILEGED);
    // It asks for no report.
    spec.annotations.insert(CONTEXT.to_owned(), "false".to_owned());
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{container::UserDatabase, decode::Limits};
    use policy::{ContainerId, Enforcer, action::MountOverlay};
    use serde_json::json;

    fn asked() -> HostSpec {
        serde_json::from_value(json!({
            "process": {"args": ["/bin/sh"], "env": ["A=b"], "cwd": "/tmp", "terminal": true, "user": {"uid": 0}, "oomScoreAdj": -998,
                "capabilities": {"bounding": ["CAP_SYS_ADMIN"]}, "rlimits": [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}]},
            "hostname": "web",
            "mounts": [{"destination": "/etc", "type": "bind", "source": "sandbox:///x", "options": ["bind"]}],
            "annotations": {PRIVILEGED: "true", "io.kubernetes.cri.container-type": "sandbox"},
            "linux": {
                "namespaces": [{"type": "pid"}],
                "sysctl": {"net.core.somaxconn": "9"},
                "devices": [{"path": "/dev/kvm", "type": "c"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn whatever_is_asked_the_pause_program_runs_with_nothing() {
        let spec = document(asked());
        spec.check().unwrap();
        let identity = UserDatabase::default().identify(&spec.process.user).unwrap();
        let id = ContainerId::new("s");
        let pod = crate::pod_files::Present::default();
        let (create, confine, unjudged) = crate::container::split(spec, &id, &id, identity, &Limits::default(), &pod).unwrap();
        assert_eq!(
            (create.arg_list, create.env_list, create.working_dir.as_str()),
            (vec![PROGRAM.to_owned()], vec![], "/")
        );
        assert_eq!(
            (create.user.id.as_str(), create.privileged, create.devices.len()),
            ("65535", false, 0)
        );
        assert!(create.is_sandbox_container && create.no_new_privileges && confine.readonly_root);
        assert_eq!(create.capabilities, Some(Default::default()));
        let places: Vec<_> = create.mounts.iter().map(|mount| mount.destination.as_str()).collect();
        assert_eq!(places, ["/proc", "/dev"]);
        assert!(confine.rlimits.is_empty() && confine.sysctls["net.core.somaxconn"] == "9" && confine.oom_score_adj == -998);
        assert!(unjudged.hostname == "web" && !unjudged.terminal && unjudged.host_certificate.is_none() && unjudged.seccomp.is_none());
    }

    #[test]
    fn a_policy_allows_it_by_an_entry_without_layers() {
        let policy = |layers: &str| {
            format!(
                "package policy\napi_version := \"0.11.0\"\nframework_version := \"0.5.0\"\nmount_overlay := data.framework.mount_overlay\n\
                 create_container := data.framework.create_container\nreason := {{\"errors\": data.framework.errors}}\n\
                 containers := [{{\"command\": [\"/pause\"], \"env_rules\": [], \"layers\": {layers}, \"mounts\": [], \
                 \"exec_processes\": [], \"signals\": [], \"user\": {{\"user_idname\": {{\"pattern\": \"\", \"strategy\": \"any\"}}, \
                 \"group_idnames\": [{{\"pattern\": \"\", \"strategy\": \"any\"}}], \"umask\": \"0022\"}}, \"capabilities\": \
                 {{\"bounding\": [], \"effective\": [], \"inheritable\": [], \"permitted\": [], \"ambient\": []}}, \
                 \"seccomp_profile_sha256\": \"\", \"allow_elevated\": false, \"working_dir\": \"/\", \"allow_stdio_access\": true, \
                 \"no_new_privileges\": true}}]\n"
            )
        };
        let overlay = |id: &ContainerId| MountOverlay {
            container_id: id.clone(),
            layer_paths: Vec::new(),
            target: "/run/gcs/c/s/rootfs".to_owned(),
        };
        let id = ContainerId::new("s");
        let mut other = Enforcer::new(&policy("[\"aa\"]")).unwrap();
        assert!(other.enforce(overlay(&id)).is_err());
        let mut enforcer = Enforcer::new(&policy("[]")).unwrap();
        enforcer.enforce(overlay(&id)).unwrap().commit();
        let spec = document(asked());
        let identity = UserDatabase::default().identify(&spec.process.user).unwrap();
        let pod = crate::pod_files::Present::default();
        let (create, ..) = crate::container::split(spec, &id, &id, identity, &Limits::default(), &pod).unwrap();
        enforcer.enforce(create).unwrap().commit();
    }
}
