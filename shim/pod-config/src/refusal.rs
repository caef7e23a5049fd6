//! What a pod asks of the host that a VM does not have: refused by name, never dropped in silence.

use k8s_cri::v1::{NamespaceMode, PodSandboxConfig, security_profile::ProfileType};

/// The thing that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A namespace of the host.
    #[error(
        "a pod cannot be in the host's {0} namespace: it runs in a VM of its own (hostNetwork, hostPID and hostIPC need another RuntimeClass)"
    )]
    HostNamespace(&'static str),
    /// A user namespace of the pod.
    #[error("a pod cannot have user namespaces (hostUsers: false): its users are those of a VM of its own already")]
    UserNamespace,
    /// SELinux options.
    #[error("a pod cannot have SELinux options: the guest has no SELinux")]
    SeLinux,
    /// An AppArmor profile of the host.
    #[error("a pod cannot have the AppArmor profile {0:?} of the host: the guest has no AppArmor")]
    AppArmor(String),
}

/// Checks what concerns the pod as a whole; each container has its own document.
pub fn check(config: &PodSandboxConfig) -> Result<(), Refused> {
    let Some(context) = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()) else {
        return Ok(());
    };
    if let Some(options) = &context.namespace_options {
        let node = i32::from(NamespaceMode::Node);
        for (kind, mode) in [("network", options.network), ("pid", options.pid), ("ipc", options.ipc)] {
            if mode == node {
                return Err(Refused::HostNamespace(kind));
            }
        }
        if options
            .userns_options
            .as_ref()
            .is_some_and(|user| user.mode == i32::from(NamespaceMode::Pod))
        {
            return Err(Refused::UserNamespace);
        }
    }
    if context.selinux_options.is_some() {
        return Err(Refused::SeLinux);
    }
    match &context.apparmor {
        Some(profile) if profile.profile_type() == ProfileType::Localhost => Err(Refused::AppArmor(profile.localhost_ref.clone())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, SeLinuxOption, SecurityProfile, UserNamespace};

    fn asked(change: impl FnOnce(&mut LinuxSandboxSecurityContext)) -> Result<(), Refused> {
        let mut context = LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption {
                pid: NamespaceMode::Container.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        change(&mut context);
        check(&PodSandboxConfig {
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(context),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    #[test]
    fn what_the_guest_does_not_have_is_refused_by_name() {
        assert_eq!(check(&PodSandboxConfig::default()), Ok(()));
        assert_eq!(asked(|_| {}), Ok(()));
        let namespace = |change: fn(&mut NamespaceOption)| asked(|context| change(context.namespace_options.get_or_insert_default()));
        let node = || i32::from(NamespaceMode::Node);
        assert_eq!(
            namespace(|it| it.network = NamespaceMode::Node.into()),
            Err(Refused::HostNamespace("network"))
        );
        assert_eq!(
            namespace(|it| it.ipc = NamespaceMode::Node.into()),
            Err(Refused::HostNamespace("ipc"))
        );
        assert_eq!(
            namespace(|it| it.pid = NamespaceMode::Node.into()),
            Err(Refused::HostNamespace("pid"))
        );
        let user = |mode: i32| {
            asked(|context| {
                let options = context.namespace_options.get_or_insert_default();
                options.userns_options = Some(UserNamespace {
                    mode,
                    ..Default::default()
                });
            })
        };
        assert_eq!(user(NamespaceMode::Pod.into()), Err(Refused::UserNamespace));
        assert_eq!(user(node()), Ok(()));
        assert_eq!(
            asked(|context| context.selinux_options = Some(SeLinuxOption::default())),
            Err(Refused::SeLinux)
        );
        let profile = |kind: ProfileType| {
            asked(|context| {
                context.apparmor = Some(SecurityProfile {
                    profile_type: kind.into(),
                    localhost_ref: "mine".to_owned(),
                });
            })
        };
        assert_eq!(profile(ProfileType::Localhost), Err(Refused::AppArmor("mine".to_owned())));
        assert_eq!(profile(ProfileType::RuntimeDefault), Ok(()));
    }
}
