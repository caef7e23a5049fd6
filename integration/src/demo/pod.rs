//! `make demo POD=1`: a pod of a web server and a database that it asks, published by CNI, under one policy.

use super::{title, without_blob};
use crate::{
    lab::{
        IMAGES, Lab, Policy,
        cri::{Answer, Cri, Pod, PodContainer, get},
    },
    testbed::images::{NGINX, NGINX_CHANGED, REDIS, file_name},
};
use anyhow::{Context, Result, bail, ensure};
use k8s_cri::v1::{ContainerConfig, KeyValue, Mount};
use std::time::Duration;

/// Servers in an emulated machine are up within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// The node's own address on the bridge, and the published port.
const PUBLISHED: &str = "10.88.0.1:8088";

/// Runs the pod, asks it, and shows what is denied.
pub fn run(lab: &Lab) -> Result<()> {
    title("1. A policy for a pod of two containers, and its digest");
    let policy = policy()?;
    println!(
        "made from\n\n{}\ndigest, which becomes the guest's HOST_DATA: {}",
        policy.config(),
        policy.digest()
    );

    title("2. The kubelet's calls: RunPodSandbox, CreateContainer, StartContainer");
    let cri = Cri::start(lab.runtime(), &[NGINX, NGINX_CHANGED, REDIS])?;
    let pod = cri.run(Pod::new("shop").under(&policy).publishes(8088, 80))?;
    pod.run(&PodContainer::new("redis", REDIS, &[]))?;
    pod.run(&PodContainer::new("nginx", NGINX, &[]))?;
    println!(
        "the pod has {}; port 8088 of the node leads to its port 80",
        pod.addresses()?.join(" and ")
    );

    title("3. The node asks nginx, which asks redis");
    for visit in 1..=3 {
        let wanted = format!("visit {visit}");
        let said = lab.until("nginx answers", SERVES_WITHIN, || {
            get(PUBLISHED).ok().filter(|said| said == &wanted)
        })?;
        println!("  http://{PUBLISHED}/: {said}");
    }

    title("4. Denied");
    denied("a changed image", pod.run(&PodContainer::new("image", NGINX_CHANGED, &[])))?;
    let changed = |change: fn(&mut ContainerConfig)| pod.run(&PodContainer::new("changed", NGINX, &[]).with(change));
    denied("another command", changed(|config| config.command = vec!["sh".to_owned()]))?;
    denied(
        "another value of the environment",
        changed(|config| {
            config.envs.push(KeyValue {
                key: "PATH".to_owned(),
                value: "/tmp".to_owned(),
            });
        }),
    )?;
    denied(
        "a mount of the host's",
        changed(|config| {
            config.mounts.push(Mount {
                container_path: "/etc/nginx".to_owned(),
                host_path: "/tmp".to_owned(),
                ..Default::default()
            });
        }),
    )?;

    title("5. A clean end");
    pod.end()?;
    drop(cri);
    lab.nothing_is_left()?;
    println!("nothing is left on the host");
    Ok(())
}

fn policy() -> Result<Policy> {
    let container = |reference: &str| {
        let layout = format!("{IMAGES}/{}", file_name(reference).trim_end_matches(".tar"));
        format!(
            "\n[[container]]\nimage_name = \"{reference}\"\nimage = \"{layout}\"\nsignals = [9, 15]\nallow_stdio_access = true\n\
             allow_privilege_escalation = true\n"
        )
    };
    Policy::of_config(&format!("[pod]\n{}{}", container(NGINX), container(REDIS)))
}

fn denied(what: &str, answer: Answer<String>) -> Result<()> {
    let said = match answer {
        Ok(id) => bail!("{what} was not denied: container {id} runs"),
        Err(status) => status.message().to_owned(),
    };
    println!("\n  {what}:\n    {}\n", without_blob(said.trim()));
    let (_, reason) = said.split_once("shim task: ").context("it is not the shim that refused")?;
    ensure!(
        reason.starts_with("denied by policy: ") || reason.contains("mount at /etc/nginx"),
        "{reason}"
    );
    Ok(())
}
