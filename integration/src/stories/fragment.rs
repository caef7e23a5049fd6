//! A signed fragment that is passed beside the policy.

use crate::{
    lab::{Ended, Lab, Policy, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::path::Path;

/// The story.
pub const STORY: Story = Story {
    name: "fragment",
    about: "a signed fragment allows what the policy alone does not; a forged or unlisted one is refused",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: fragment,
};

/// A certificate chain and its leaf's key, for tests.
const CHAIN: &str = include_str!("../../../policy/tools/fixtures/p256.chain.pem");
const KEY: &str = include_str!("../../../policy/tools/fixtures/p256.key");
const FEED: &str = "stories.example/echo";
const ECHO: [&str; 2] = ["echo", "allowed by a fragment"];

/// A fragment that allows [`ECHO`], with its signature and issuer.
fn signed_fragment(dir: &Path) -> Result<(Vec<u8>, String)> {
    let path = |name: &str| -> Result<String> { Ok(dir.join(name).to_str().context("a path that is not UTF-8")?.to_owned()) };
    let config = Policy::of(BUSYBOX).command(&ECHO).generate()?.config().to_owned();
    let (toml, text, signed, key, chain) = (
        path("app.toml")?,
        path("app.rego")?,
        path("app.cose")?,
        path("leaf.key")?,
        path("chain.pem")?,
    );
    for (file, content) in [(&toml, config.as_str()), (&key, KEY), (&chain, CHAIN)] {
        std::fs::write(file, content).with_context(|| format!("cannot write {file}"))?;
    }
    let words = [
        "casemate",
        "policy",
        "generate",
        "--config",
        &toml,
        "--fragment",
        "app",
        "--svn",
        "1",
        "--output",
        &text,
    ];
    Ended::of(&words)?.exits_with(0)?;
    let words = [
        "casemate", "policy", "fragment", "sign", "--key", &key, "--chain", &chain, "--feed", FEED, "--svn", "1", &text, &signed,
    ];
    Ended::of(&words)?.exits_with(0)?;
    let issuer = Ended::of(&["casemate", "policy", "fragment", "issuer", &chain])?
        .exits_with(0)?
        .text();
    Ok((std::fs::read(&signed).context("cannot read the signed fragment")?, issuer))
}

/// A policy without containers of its own: only `feed` of `issuer` can bring some.
fn policy_for_feed(issuer: &str, feed: &str) -> Result<Policy> {
    Policy::of_config(&format!(
        "[[fragment]]\nissuer = {}\nfeed = {}\nminimum_svn = \"1\"\ninclude = [\"containers\"]\n",
        serde_json::Value::from(issuer),
        serde_json::Value::from(feed),
    ))
}

fn fragment(lab: &Lab) -> Result<()> {
    let dir = tempfile::tempdir_in("/job").context("cannot create a directory")?;
    let (signed, issuer) = signed_fragment(dir.path())?;
    let run = |policy: &Policy, message: Option<&[u8]>| {
        let mut container = lab.container(BUSYBOX).under(policy).command(ECHO);
        if let Some(message) = message {
            container = container.option("--annotation", &format!("io.casemate.fragments={}", STANDARD.encode(message)));
        }
        container.run()
    };
    let policy = policy_for_feed(&issuer, FEED)?;
    run(&policy, Some(&signed))?.exits_with(0)?.prints(ECHO[1])?;
    run(&policy, None)?.fails()?.mentions("(rule mount_device)")?;
    let mut forged = signed.clone();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    run(&policy, Some(&forged))?.fails()?.mentions("cannot load fragment 1")?;
    let other = policy_for_feed(&issuer, "stories.example/other")?;
    run(&other, Some(&signed))?.fails()?.mentions("(rule load_fragment)")?;
    lab.nothing_is_left()
}
