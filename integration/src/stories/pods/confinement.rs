//! The security context of a pod's containers: what is applied, and what is refused by name because a VM has no such thing.

use super::{idle, pod, two_containers, with_cri};
use crate::{
    lab::{
        Lab, Runtime,
        cri::{Pod, PodContainer, RunningPod},
    },
    stories::story::{BOTH, OURS, Story},
};
use anyhow::{Context, Result, bail, ensure};
use k8s_cri::v1::{Capability, Device, Int64Value, LinuxContainerSecurityContext, SecurityProfile, security_profile::ProfileType};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    pod(
        "pod-security",
        "seccomp, capabilities, users, read-only paths and kernel parameters of a pod's security context are applied",
        BOTH,
        security,
    ),
    pod(
        "pod-refused-devices",
        "devices, profiles of AppArmor and privileged containers are refused by name or applied, and never ignored",
        OURS,
        refused_devices,
    ),
];

/// containerd's default capabilities.
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;
const NET_BIND_SERVICE: u64 = 1 << 10;
const SYS_TIME: u64 = 1 << 25;

fn profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile {
        profile_type: kind.into(),
        ..Default::default()
    }
}

/// A started container that does nothing in this context; returns its id.
fn within(pod: &RunningPod<'_>, name: &str, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Result<String> {
    pod.run(&idle(name).context(change)).with_context(|| name.to_owned())
}

/// A field of the status of an exec, which a container's own process has too.
fn status(pod: &RunningPod<'_>, id: &str, field: &str) -> Result<String> {
    let of = |path: &str| -> Result<String> {
        let text = pod.output(id, &["cat", path])?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("{path} has no {field}"))?.trim().to_owned())
    };
    let (own, exec) = (of("/proc/1/status")?, of("/proc/self/status")?);
    ensure!(own == exec, "{field} is {own}, but {exec} in an exec");
    Ok(own)
}

fn capabilities(pod: &RunningPod<'_>, id: &str, set: &str) -> Result<u64> {
    let text = status(pod, id, set)?;
    u64::from_str_radix(&text, 16).with_context(|| format!("{set} is {text}"))
}

fn security(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("security").linux(|linux| {
            for (name, value) in [("net.ipv4.ip_unprivileged_port_start", "80"), ("kernel.shm_rmid_forced", "1")] {
                linux.sysctls.insert(name.to_owned(), value.to_owned());
            }
        }))?;
        let fails = |id: &str, script: &str, why: &str| -> Result<()> {
            let ended = pod.exec(id, &["sh", "-c", script], 0)?;
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            ensure!(
                ended.exit_code != 0 && said.contains(why),
                "{script} ended with {}: {said}",
                ended.exit_code
            );
            Ok(())
        };

        let filtered = within(&pod, "filtered", |context| {
            context.seccomp = Some(profile(ProfileType::RuntimeDefault))
        })?;
        ensure!(status(&pod, &filtered, "Seccomp")? == "2");
        fails(&filtered, "busybox unshare -U true", "Operation not permitted")?;
        ensure!(capabilities(&pod, &filtered, "CapEff")? == DEFAULT_CAPABILITIES);
        ensure!(capabilities(&pod, &filtered, "CapBnd")? == DEFAULT_CAPABILITIES);
        for (name, value) in [("net/ipv4/ip_unprivileged_port_start", "80"), ("kernel/shm_rmid_forced", "1")] {
            let found = pod.output(&filtered, &["cat", &format!("/proc/sys/{name}")])?;
            ensure!(found == value, "{name} is {found}");
        }
        let open = within(&pod, "open", |context| context.seccomp = Some(profile(ProfileType::Unconfined)))?;
        pod.output(&open, &["busybox", "unshare", "-U", "true"])?;
        // The guest's own filter stays (docs/OPERATING.md).
        let wanted = if lab.runtime() == Runtime::Casemate { "2" } else { "0" };
        ensure!(status(&pod, &open, "Seccomp")? == wanted);

        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let more = within(&pod, "more", |context| {
            context.capabilities = Some(Capability {
                add_capabilities: names(&["SYS_TIME"]),
                ..Default::default()
            });
        })?;
        ensure!(capabilities(&pod, &more, "CapEff")? == DEFAULT_CAPABILITIES | SYS_TIME);
        let few = within(&pod, "few", |context| {
            context.capabilities = Some(Capability {
                add_capabilities: names(&["NET_BIND_SERVICE"]),
                drop_capabilities: names(&["ALL"]),
                ..Default::default()
            });
            context.no_new_privs = true;
        })?;
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            ensure!(capabilities(&pod, &few, set)? == NET_BIND_SERVICE, "{set}");
        }
        ensure!(status(&pod, &few, "NoNewPrivs")? == "1");
        ensure!(status(&pod, &more, "NoNewPrivs")? == "0");
        fails(&few, "touch /tmp/x; chown 9 /tmp/x", "Operation not permitted")?;

        let user = within(&pod, "user", |context| {
            context.run_as_user = Some(Int64Value { value: 1000 });
            context.run_as_group = Some(Int64Value { value: 2000 });
            context.supplemental_groups = vec![3000];
        })?;
        let found = pod.output(&user, &["id"])?;
        ensure!(found.contains("uid=1000 gid=2000") && found.contains("3000"), "{found}");
        ensure!(status(&pod, &user, "Uid")? == "1000\t1000\t1000\t1000");
        ensure!(capabilities(&pod, &user, "CapEff")? == 0);
        fails(&user, "echo x >/etc/passwd", "Permission denied")?;

        let fixed = within(&pod, "fixed", |context| {
            context.readonly_rootfs = true;
            context.masked_paths = names(&["/proc/keys", "/sys/firmware"]);
            context.readonly_paths = names(&["/proc/sys"]);
        })?;
        fails(&fixed, "touch /x", "Read-only file system")?;
        fails(&fixed, "echo 1 >/proc/sys/kernel/shm_rmid_forced", "Read-only file system")?;
        ensure!(
            pod.output(&fixed, &["sh", "-c", "cat /proc/keys; ls /sys/firmware"])?.is_empty(),
            "a masked path shows something"
        );
        pod.output(&fixed, &["touch", "/dev/shm/x"])?;
        pod.end()
    })
}

/// What is said of a container that is refused.
fn said(pod: &RunningPod<'_>, what: &str, container: &PodContainer) -> Result<String> {
    match pod.run(container) {
        Ok(_) => bail!("{what} was not refused"),
        Err(status) => {
            println!("  {what}: {}", status.message().chars().take(300).collect::<String>());
            Ok(status.message().to_owned())
        }
    }
}

fn refused_devices(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("devices"))?;
        let device = |container_path: &str, host_path: &str| {
            idle("device").with(|config| {
                config.devices.push(Device {
                    container_path: container_path.to_owned(),
                    host_path: host_path.to_owned(),
                    permissions: "rwm".to_owned(),
                });
            })
        };
        let text = said(&pod, "a device", &device("/dev/accelerator", "/dev/kvm"))?;
        ensure!(text.contains("/dev/accelerator"), "{text}");
        let apparmor = idle("apparmor").context(|context| {
            context.apparmor = Some(SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: "localhost/mine".to_owned(),
            });
        });
        let text = said(&pod, "a profile of AppArmor", &apparmor)?;
        ensure!(text.to_lowercase().contains("apparmor"), "{text}");
        let missing = idle("seccomp").context(|context| {
            context.seccomp = Some(SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: "/nowhere/profile.json".to_owned(),
            });
        });
        let text = said(&pod, "a profile that is not there", &missing)?;
        ensure!(text.contains("seccomp"), "{text}");
        // One of those that every container can open, under another name.
        let nothing = pod
            .run(&device("/dev/nothing", "/dev/null"))
            .context("a device that the guest has")?;
        pod.output(&nothing, &["sh", "-c", "echo x >/dev/nothing"])?;
        pod.end()?;

        let privileged = |name: &str| {
            Pod::new(name).linux(|linux| {
                linux.security_context.get_or_insert_default().privileged = true;
            })
        };
        let container = idle("privileged").context(|context| context.privileged = true);
        let pod = cri.run(privileged("privileged"))?;
        let id = pod.run(&container)?;
        let last: u32 = pod
            .output(&id, &["cat", "/proc/sys/kernel/cap_last_cap"])?
            .parse()
            .context("no number")?;
        ensure!(
            capabilities(&pod, &id, "CapEff")? == (1 << (last + 1)) - 1,
            "it has not every capability"
        );
        // Of its guest alone, and not the disks under the guest's own file systems.
        let ended = pod.exec(&id, &["sh", "-c", "busybox mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk"], 0)?;
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.exit_code != 0 && text.contains("Operation not permitted"), "{text}");
        pod.end()?;

        let pod = cri.run(privileged("judged").under(&two_containers()?))?;
        let text = said(&pod, "a privileged container under a policy", &container)?;
        // It lists every device of its host.
        ensure!(text.contains("denied by policy: ") && text.contains("device nodes"), "{text}");
        pod.end()
    })
}
