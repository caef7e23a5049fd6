//! An image of a private registry: nothing without its authority and its password, then a policy and a container of it by name.

use crate::{
    lab::{
        Ended, Lab, Set,
        registry::{PASSWORD, Registry},
    },
    stories::story::{Machines, OURS, Story},
    testbed::images::{BUSYBOX, BUSYBOX_CHANGED},
};
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The story of this file.
pub const STORY: Story = Story {
    name: "private-registry",
    about: "an image of a registry with a login and its own authority: pulled, judged, run, and denied when its tag has moved",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run,
};

const PORT: u16 = 5000;
/// What a newcomer reads first.
const README: &str = include_str!("../../../README.md");
/// containerd's log, with those of the shims.
const LOG: &str = "/run/containerd.log";

fn run(lab: &Lab) -> Result<()> {
    let mut registry = Registry::new(PORT, &std::env::temp_dir())?;
    let image = format!("{}/team/app:1", registry.address);
    push(&mut registry, BUSYBOX, &image)?;
    let files = tempfile::tempdir().context("cannot create a directory")?;
    let file = |name: &str| files.path().join(name);
    let casemate = |words: &[&str]| Ended::of(&[&["casemate"], words].concat());
    let run = |registries: &str, words: &[&str]| casemate(&[&["run", "--registries", registries], words].concat());

    println!("  nothing without its authority, and nothing without its password");
    casemate(&["run", &image, "true"])?.exits_with(125)?.mentions("UnknownIssuer")?;
    for password in [None, Some("wrong-hunter2")] {
        let refused = registry.configuration(&file("refused.toml"), password)?;
        run(&refused, &[&image, "true"])?.exits_with(125)?.mentions("401")?;
    }

    println!("  a policy of the name alone, and a container under it");
    let registries = registry.configuration(&file("registries.toml"), Some(PASSWORD))?;
    let policy = file("app.rego").display().to_string();
    let generate = ["policy", "generate", &image, "--registries", &registries, "--output", &policy];
    casemate(&generate)?.exits_with(0)?;
    let pinned = pin(&policy)?;
    run(&registries, &["--policy", &policy, &image])?.exits_with(0)?;
    run(&registries, &[&image, "echo", "pulled"])?.exits_with(0)?.prints("pulled")?;
    lab.nothing_is_left()?;

    println!("  what README says, pasted");
    pasted(files.path(), &registry)?;
    lab.nothing_is_left()?;

    println!("  the tag moves");
    push(&mut registry, BUSYBOX_CHANGED, &image)?;
    Ended::of(&["ctr", "image", "remove", "--sync", &image])?.exits_with(0)?;
    let moved = run(&registries, &["--policy", &policy, &image])?
        .exits_with(125)?
        .mentions(&pinned)?;
    casemate(&generate)?.exits_with(0)?;
    let found = pin(&policy)?;
    ensure!(found != pinned, "the image has not changed");
    moved.mentions(&found)?;
    run(&registries, &["--policy", &policy, &image])?.exits_with(0)?;

    registry.stop();
    // The harness looks for secrets in it.
    std::fs::copy(LOG, Path::new("/job/out/containerd.log")).context("cannot keep containerd's log")?;
    Ended::of(&["ctr", "image", "remove", "--sync", &image])?.exits_with(0)?;
    lab.nothing_is_left()
}

/// Copies an image of containerd to the registry, which is open only while that is done.
fn push(registry: &mut Registry, image: &str, name: &str) -> Result<()> {
    registry.open()?;
    Ended::of(&["ctr", "image", "push", "--plain-http", name, image])?.exits_with(0)?;
    registry.guard()
}

/// Runs README's commands as they stand there, but for the registry's name.
fn pasted(directory: &Path, registry: &Registry) -> Result<()> {
    let block = README
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .find(|block| block.contains("registries.toml"))
        .context("README has no commands for a private registry")?;
    std::fs::write(directory.join("corp-ca.pem"), &registry.authority).context("cannot write a certificate")?;
    let script = directory.join("pasted.sh");
    let lines = format!(
        "set -e\ncd {}\nPASSWORD={PASSWORD}\n{}",
        directory.display(),
        block.replace("registry.corp", &registry.address)
    );
    std::fs::write(&script, lines).context("cannot write a script")?;
    Ended::of(&["sh", &script.display().to_string()])?.exits_with(0)?;
    Ok(())
}

/// The digest with which a policy begins.
fn pin(policy: &str) -> Result<String> {
    let text = std::fs::read_to_string(policy).context("cannot read the policy")?;
    let digest = text.lines().next().and_then(|line| line.rsplit_once('@'));
    Ok(digest.with_context(|| format!("the policy names no digest: {text}"))?.1.to_owned())
}
