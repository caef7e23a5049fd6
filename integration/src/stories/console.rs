//! The operator's console: diagnostic programs that the host asks the guest to run.

use crate::{
    lab::{Ended, Lab, Policy, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Result, ensure};

/// The story.
pub const STORY: Story = Story {
    name: "console",
    about: "an operator sees in the guest what the policy allows, and nothing else",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: console,
};

fn console(lab: &Lab) -> Result<()> {
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
    ensure!(!inside.said().contains("/run/gcs"), "a denied diagnostic program ran");
    container.killed(lab)?;
    lab.nothing_is_left()
}
