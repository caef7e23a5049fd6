//! The pod's hosts, hostname and resolv.conf, as containerd's own sandbox controller writes them.

use k8s_cri::v1::{DnsConfig, PodSandboxConfig};

/// The loopback's names; the kubelet mounts a file with the pod's own address into each container itself.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Contents of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFiles {
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/hostname`.
    pub hostname: String,
    /// `/etc/resolv.conf`; `None` where the pod has the node's.
    pub resolv_conf: Option<String>,
}

impl PodFiles {
    /// The files of a pod.
    pub fn of(config: &PodSandboxConfig) -> Self {
        Self {
            hosts: HOSTS.to_owned(),
            hostname: format!("{}\n", hostname(config)),
            resolv_conf: config.dns_config.as_ref().and_then(resolv_conf),
        }
    }
}

/// The pod's host name: its name where it has no other.
pub fn hostname(config: &PodSandboxConfig) -> &str {
    match &config.metadata {
        Some(metadata) if config.hostname.is_empty() => &metadata.name,
        _ => &config.hostname,
    }
}

/// `parseDNSOptions` of containerd: an empty configuration is the node's.
fn resolv_conf(dns: &DnsConfig) -> Option<String> {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::PodSandboxMetadata;

    #[test]
    fn the_files_are_those_of_containerd() {
        let mut config = PodSandboxConfig {
            hostname: "web".to_owned(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned(), "fd00::a".to_owned()],
                searches: vec!["a.local".to_owned(), "b.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            ..Default::default()
        };
        let files = PodFiles::of(&config);
        assert_eq!(files.hostname, "web\n");
        let expected = "search a.local b.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(files.resolv_conf.as_deref(), Some(expected));
        config.dns_config = Some(DnsConfig::default());
        config.hostname.clear();
        config.metadata = Some(PodSandboxMetadata {
            name: "pod".to_owned(),
            ..Default::default()
        });
        let files = PodFiles::of(&config);
        assert_eq!((files.hostname.as_str(), files.resolv_conf), ("pod\n", None));
    }
}
