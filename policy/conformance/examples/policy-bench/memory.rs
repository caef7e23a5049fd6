//! Memory of a loaded policy, and its growth over many decisions.

use std::process::Command;

use policy::Enforcer;
use serde_json::{Value, json};

use crate::Error;
use crate::policy::{Requests, policy};

/// Number of decisions over which memory must not grow.
const MANY_DECISIONS: usize = 100_000;
/// Number of containers of their policy.
const CONTAINERS: usize = 10;

/// Memory of a separate process for a policy of this many containers.
pub fn of_policy(containers: usize, shared: bool) -> Result<Value, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--memory").arg(containers.to_string());
    if shared {
        command.arg("--shared");
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Measures and prints the memory in that process. Pages of the program's code that loading touches for the first time do not count:
/// all processes of the program share them.
pub fn measure(containers: usize, shared: bool) -> Result<(), Error> {
    let text = policy(containers, shared);
    let before = kib("RssAnon:")?;
    let enforcer = Enforcer::new(&text)?;
    let (loaded, peak) = (kib("RssAnon:")?, kib("VmHWM:")? - kib("RssFile:")?);
    drop(enforcer);
    println!(
        "{}",
        json!({"kib": loaded.saturating_sub(before), "peak_kib": peak.saturating_sub(before)})
    );
    Ok(())
}

/// A line of this process's status, in KiB.
fn kib(name: &str) -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no such line")?;
    Ok(number.parse()?)
}

/// Memory before and after many decisions that restore the initial state; a quarter is denied and a quarter rolled back.
pub fn growth() -> Result<Value, Error> {
    let mut enforcer = Enforcer::new(&policy(CONTAINERS, false))?;
    let requests = Requests {
        container: 0,
        shared: false,
    };
    let mut cycle = |count: usize| -> Result<(), Error> {
        for _ in 0..count / 4 {
            enforcer.enforce(requests.mount(0))?.commit();
            drop(enforcer.enforce(requests.mount(1))?);
            assert!(enforcer.enforce(requests.overlay()).is_err());
            enforcer.enforce(requests.unmount(0))?.commit();
        }
        Ok(())
    };
    cycle(MANY_DECISIONS / 10)?;
    let before = kib("VmRSS:")?;
    cycle(MANY_DECISIONS)?;
    Ok(json!({"decisions": MANY_DECISIONS, "before_kib": before, "after_kib": kib("VmRSS:")?}))
}
