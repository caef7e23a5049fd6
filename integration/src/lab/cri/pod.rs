//! Pods and containers as the kubelet describes them.

use crate::lab::Policy;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping,
};
use std::sync::atomic::{AtomicU32, Ordering};

/// A pod to be run.
#[derive(Clone)]
pub struct Pod(pub(super) PodSandboxConfig);

/// A container to be created in a pod.
#[derive(Clone)]
pub struct PodContainer(pub(super) ContainerConfig);

impl Pod {
    /// A pod with namespaces of its own, and `pod` shared by its containers as the kubelet asks.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespaces = NamespaceOption {
            network: NamespaceMode::Pod.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Pod.into(),
            ..Default::default()
        };
        Self(PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{number}"),
                namespace: "stories".to_owned(),
                attempt: 1,
            }),
            hostname: name.to_owned(),
            log_directory: format!("{}/{name}-{number}", super::node::LOGS),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                searches: vec!["stories.svc.cluster.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// Sets parameters of the kernel for it.
    pub fn sysctls(mut self, pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.0.linux.get_or_insert_default().sysctls.extend(pairs);
        self
    }

    /// Changes its namespaces.
    pub fn namespaces(mut self, change: impl FnOnce(&mut NamespaceOption)) -> Self {
        let context = self.0.linux.get_or_insert_default().security_context.get_or_insert_default();
        change(context.namespace_options.get_or_insert_default());
        self
    }

    /// Changes the request.
    pub fn with(mut self, change: impl FnOnce(&mut PodSandboxConfig)) -> Self {
        change(&mut self.0);
        self
    }

    /// Changes what a pod of Linux asks for.
    pub fn linux(self, change: impl FnOnce(&mut LinuxPodSandboxConfig)) -> Self {
        self.with(|config| change(config.linux.get_or_insert_default()))
    }

    /// Adds an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets its policy.
    pub fn under(self, policy: &Policy) -> Self {
        let annotation = policy.annotation();
        match annotation.split_once('=') {
            Some((key, value)) => self.annotation(key, value),
            None => self,
        }
    }

    /// Publishes `host_port` of the machine as the pod's `port`.
    pub fn publishes(mut self, host_port: u16, port: u16) -> Self {
        self.0.port_mappings.push(PortMapping {
            container_port: port.into(),
            host_port: host_port.into(),
            ..Default::default()
        });
        self
    }
}

impl PodContainer {
    /// A container of `image` that runs `command`.
    pub fn new(name: &str, image: &str, command: &[&str]) -> Self {
        let words = command.iter().map(|word| (*word).to_owned()).collect();
        Self(ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: image.to_owned(),
                ..Default::default()
            }),
            command: words,
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// Changes the request.
    pub fn with(mut self, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        change(&mut self.0);
        self
    }

    /// Limits its memory, in bytes.
    pub fn memory(self, bytes: i64) -> Self {
        self.with(|config| {
            let resources = config.linux.get_or_insert_default().resources.get_or_insert_default();
            resources.memory_limit_in_bytes = bytes;
        })
    }

    /// Changes its security context.
    pub fn context(self, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        self.with(|config| change(config.linux.get_or_insert_default().security_context.get_or_insert_default()))
    }

    /// Shares the pid namespace of the pod.
    pub fn shares_pids(self) -> Self {
        self.context(|context| {
            context.namespace_options.get_or_insert_default().pid = NamespaceMode::Pod.into();
        })
    }
}
