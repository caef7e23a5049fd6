//! The security context directory: the files in which a container finds its policy.

use crate::{
    lab::{Lab, Policy, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};

/// The story.
pub const STORY: Story = Story {
    name: "security-context",
    about: "a container finds its policy and the socket for reports in a directory, unless an annotation turns that off",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: security_context,
};

const NO_CONTEXT: &str = "io.microsoft.virtualmachine.lcow.securitypolicy.env=false";

fn security_context(lab: &Lab) -> Result<()> {
    let look = [
        "sh",
        "-c",
        "test -S $UVM_SECURITY_CONTEXT_DIR/report.sock && cat $UVM_SECURITY_CONTEXT_DIR/security-policy-base64 || ls -d /security-context-*",
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
