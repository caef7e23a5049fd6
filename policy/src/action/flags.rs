//! Actions without arguments, allowed by a flag of the policy: `get_properties`, `dump_stacks`, `runtime_logging`, `host_network`.

use serde::{Deserialize, Serialize};

use super::Action;

/// Reads statistics and process lists of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetProperties {}

impl Action for GetProperties {
    const POINT: &'static str = "get_properties";
    type Verdict = ();
}

/// Reads stack traces of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpStacks {}

impl Action for DumpStacks {
    const POINT: &'static str = "dump_stacks";
    type Verdict = ();
}

/// Writes the agent's log to the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeLogging {}

impl Action for RuntimeLogging {
    const POINT: &'static str = "runtime_logging";
    type Verdict = ();
}

/// Runs a container in the guest's network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostNetwork {}

impl Action for HostNetwork {
    const POINT: &'static str = "host_network";
    type Verdict = ();
}
