//! A pod whose guest pulls an image itself, over the pod's own network, and what policy and registry can have against it.

use crate::{
    lab::{
        IMAGES, Lab, Policy, Set,
        cri::{Answer, Cri, Pod, PodContainer, RunningPod},
        registry::{PASSWORD, Registry},
    },
    stories::{
        pods::{IDLE, denied},
        story::{Machines, OURS, Story},
    },
    testbed::images::{BUSYBOX, BUSYBOX_CHANGED, file_name},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The story of this file.
pub const STORY: Story = Story {
    name: "pod-guest-pull",
    about: "a pod's guest pulls an image by its own network, the host brings the same one, and one policy judges both",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run,
};

/// Where pods reach the machine: their bridge has this address once there is a pod.
const GATEWAY: &str = "10.88.0.1";
/// Another than that of the story `private-registry`.
const PORT: u16 = 5001;
/// What the shim gives to the guest when it boots.
const REGISTRIES: &str = "/etc/casemate/registries.toml";
const PULL: &str = "io.casemate.pull";
/// containerd's CRI plugin hears of an image within this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
/// A pull from a registry that is down has failed within this time in an emulated machine; the puller gives it half a minute.
const FAILS_WITHIN: Duration = Duration::from_secs(80);

fn run(lab: &Lab) -> Result<()> {
    let mut registry = Registry::reached_at(GATEWAY, PORT, &std::env::temp_dir())?;
    let cri = Cri::start(lab.runtime(), &[BUSYBOX, BUSYBOX_CHANGED])?;
    std::fs::create_dir_all("/etc/casemate").context("cannot make the directory of the configuration")?;
    registry.configuration(Path::new(REGISTRIES), Some(PASSWORD))?;
    let result = pulled(lab, &cri, &mut registry);
    std::fs::remove_file(REGISTRIES).context("cannot remove the registries' configuration")?;
    if result.is_err() {
        cri.show_log();
    }
    result?;
    drop(cri);
    registry.stop();
    lab.nothing_is_left()
}

fn pulled(lab: &Lab, cri: &Cri, registry: &mut Registry) -> Result<()> {
    registry.open()?;
    let app = kept_in(cri, registry, BUSYBOX, "team/app")?;
    let other = kept_in(cri, registry, BUSYBOX_CHANGED, "team/other")?;
    registry.guard()?;
    let policy = policy(&app, &digest(cri, &app)?)?;
    let by_guest = |name: &str, image: &str| container(name, image, Some("guest"));

    println!("  by the guest, and by the host");
    let pod = cri.run(Pod::new("pull").under(&policy))?;
    let first = ran(lab, &pod, &by_guest("guest", &app))?;
    ensure!(pod.output(&first, &["cat", "/etc/hostname"])? == "pull");
    let second = ran(lab, &pod, &container("host", &app, None))?;
    ensure!(pod.output(&second, &["cat", "/etc/hostname"])? == "pull");
    // Shared with the first: nothing is pulled again.
    let third = ran(lab, &pod, &by_guest("again", &app))?;
    ensure!(pod.output(&third, &["cat", "/etc/hostname"])? == "pull");
    let log = cri.log();
    let count = |text: &str| log.matches(text).count();
    ensure!(
        count("the guest has image") == 1,
        "the guest pulled {} times",
        count("the guest has image")
    );
    ensure!(count("pulled layer") == 1, "{} layers were pulled", count("pulled layer"));

    println!("  an image that the policy does not list, and a value that nobody knows");
    denied("pull_image", "list of pulls", known(lab, &pod, &by_guest("other", &other))?)?;
    let said = refused(known(lab, &pod, &container("both", &app, Some("both")))?)?;
    ensure!(said.contains("host and guest are known"), "{said}");
    pod.end()?;

    println!("  a whole pod by its annotation");
    let pod = cri.run(Pod::new("whole").under(&policy).annotation(PULL, "guest"))?;
    let id = ran(lab, &pod, &container("inherits", &app, None))?;
    ensure!(pod.output(&id, &["cat", "/etc/hostname"])? == "whole");
    ensure!(
        cri.log().matches("the guest has image").count() == 2,
        "the pod's annotation does not count"
    );
    pod.end()?;

    println!("  a registry that is down");
    registry.stop();
    let pod = cri.run(Pod::new("down").under(&policy))?;
    let start = Instant::now();
    let said = refused(known(lab, &pod, &by_guest("late", &app))?)?;
    println!("  {said}");
    ensure!(start.elapsed() < FAILS_WITHIN, "it took {:?}", start.elapsed());
    let server = format!("the registry of {}/team/app", registry.address);
    ensure!(said.contains(&server) && said.contains("was not there for 30 s"), "{said}");
    // The pod goes on, and so does its guest once there is a registry.
    registry.guard()?;
    ran(lab, &pod, &by_guest("later", &app))?;
    pod.end()
}

/// Moves an image of the story's containerd to the registry, and to the name of the registry as pods reach it: CRI knows it by no other.
fn kept_in(cri: &Cri, registry: &Registry, image: &str, repository: &str) -> Result<String> {
    let named = format!("{}/{repository}:1", registry.address);
    let pushed = format!("127.0.0.1:{PORT}/{repository}:1");
    cri.ctr(&["images", "push", "--plain-http", &pushed, image])?.exits_with(0)?;
    cri.ctr(&["images", "tag", image, &named])?.exits_with(0)?;
    cri.ctr(&["images", "remove", image])?.exits_with(0)?;
    Ok(named)
}

/// The digest that containerd has for an image.
fn digest(cri: &Cri, image: &str) -> Result<String> {
    let list = cri.ctr(&["images", "list", &format!("name==\"{image}\"")])?.exits_with(0)?.text();
    let digest = list.split_ascii_whitespace().find(|word| word.starts_with("sha256:"));
    Ok(digest.with_context(|| format!("no digest of {image}: {list}"))?.to_owned())
}

/// One idle container, by whoever brings its layers.
fn policy(image: &str, digest: &str) -> Result<Policy> {
    let (name, _) = image.rsplit_once(':').context("an image without a tag")?;
    let layout = format!("{IMAGES}/{}", file_name(BUSYBOX).trim_end_matches(".tar"));
    let command = serde_json::Value::from(IDLE.to_vec()).to_string();
    Policy::of_config(&format!(
        "allow_properties_access = true\nallow_runtime_logging = true\n[pod]\n\
         [[pull]]\nstrategy = \"string\"\nrule = \"{name}@{digest}\"\n\
         [[container]]\nimage_name = \"{image}\"\nimage = \"{layout}\"\ncommand = {command}\nsignals = [9, 15]\nallow_stdio_access = true\n\
         allow_privilege_escalation = true\n[[container.exec_process]]\ncommand = [\"cat\", \"/etc/hostname\"]\nsignals = [9, 15]\n"
    ))
}

fn container(name: &str, image: &str, pull: Option<&str>) -> PodContainer {
    PodContainer::new(name, image, IDLE).with(|config| {
        let annotation = pull.map(|pull| (PULL.to_owned(), pull.to_owned()));
        config.annotations.extend(annotation);
    })
}

/// Runs a container once CRI knows its image.
fn known(lab: &Lab, pod: &RunningPod<'_>, container: &PodContainer) -> Result<Answer<String>> {
    let id = lab.until("CRI knows the image", KNOWN_WITHIN, || match pod.create(container) {
        Err(status) if status.message().contains("not found") => None,
        created => Some(created),
    })?;
    Ok(id.and_then(|id| pod.start(&id).inspect_err(|_| drop(pod.remove(&id))).map(|()| id)))
}

fn ran(lab: &Lab, pod: &RunningPod<'_>, container: &PodContainer) -> Result<String> {
    known(lab, pod, container)?.context("a container that must run")
}

fn refused(answer: Answer<String>) -> Result<String> {
    match answer {
        Ok(id) => bail!("container {id} runs"),
        Err(status) => Ok(status.message().to_owned()),
    }
}
