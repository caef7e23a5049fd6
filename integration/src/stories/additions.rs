//! What comes beside the policy: signed fragments, the files in which a container finds its policy, and the operator's console.

use crate::{
    lab::{Ended, Lab, Policy},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::path::Path;

/// A chain and its leaf's key, made for tests.
const CHAIN: &str = include_str!("../../../policy/tools/fixtures/p256.chain.pem");
const KEY: &str = include_str!("../../../policy/tools/fixtures/p256.key");
const FEED: &str = "stories.example/echo";
const ECHO: [&str; 2] = ["echo", "allowed by a fragment"];
const NO_CONTEXT: &str = "io.microsoft.virtualmachine.lcow.securitypolicy.env=false";

/// A fragment that allows [`ECHO`], signed, and who signed it.
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

/// A policy of its own containers: none, but for what `feed` of `issuer` brings.
fn trusting(issuer: &str, feed: &str) -> Result<Policy> {
    Policy::of_config(&format!(
        "[[fragment]]\nissuer = {}\nfeed = {}\nminimum_svn = \"1\"\ninclude = [\"containers\"]\n",
        serde_json::Value::from(issuer),
        serde_json::Value::from(feed),
    ))
}

pub(super) fn fragment(lab: &Lab) -> Result<()> {
    let dir = tempfile::tempdir_in("/job").context("cannot create a directory")?;
    let (signed, issuer) = signed_fragment(dir.path())?;
    let run = |policy: &Policy, message: Option<&[u8]>| {
        let mut container = lab.container(BUSYBOX).under(policy).command(ECHO);
        if let Some(message) = message {
            container = container.option("--annotation", &format!("io.casemate.fragments={}", STANDARD.encode(message)));
        }
        container.run()
    };
    let policy = trusting(&issuer, FEED)?;
    run(&policy, Some(&signed))?.exits_with(0)?.prints(ECHO[1])?;
    run(&policy, None)?.fails()?.mentions("(rule mount_device)")?;
    let mut forged = signed.clone();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    run(&policy, Some(&forged))?.fails()?.mentions("cannot load fragment 1")?;
    let other = trusting(&issuer, "stories.example/other")?;
    run(&other, Some(&signed))?.fails()?.mentions("(rule load_fragment)")?;
    lab.nothing_is_left()
}

pub(super) fn security_context(lab: &Lab) -> Result<()> {
    let look = [
        "sh",
        "-c",
        "cat $UVM_SECURITY_CONTEXT_DIR/security-policy-base64 || ls -d /security-context-*",
    ];
    let policy = Policy::of(BUSYBOX).command(&look).generate()?;
    let container = lab.container(BUSYBOX).under(&policy).command(look);
    container.run()?.exits_with(0)?.prints(&STANDARD.encode(policy.text()))?;
    let without = lab
        .container(BUSYBOX)
        .under(&policy)
        .option("--annotation", NO_CONTEXT)
        .command(look);
    without.run()?.fails()?;
    lab.nothing_is_left()
}

pub(super) fn console(lab: &Lab) -> Result<()> {
    let container = Policy::of(BUSYBOX).command(&["sleep", "1000"]).signals(&[9]).generate()?;
    let policy = Policy::of_config(&format!(
        "{}[[external_process]]\ncommand = [\"/init\", \"show\", \"version\"]\nworking_dir = \"/\"\nallow_stdio_access = true\n",
        container.config()
    ))?;
    let container = lab.container(BUSYBOX).under(&policy).command(["sleep", "1000"]).start()?;
    let console = |what: &str| Ended::of(&["casemate", "console", container.id(), "--", "/init", "show", what]);
    let shown = console("version")?.exits_with(0)?.text();
    ensure!(shown.starts_with("Linux version "), "the guest shows {shown:?}");
    let inside = console("mounts")?.exits_with(125)?.mentions("(rule exec_external)")?;
    ensure!(!inside.said().contains("/run/gcs"), "a denied look was shown");
    container.killed(lab)?;
    lab.nothing_is_left()
}
