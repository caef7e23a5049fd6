//! What the agent's threads are doing, from the kernel's files (proc(5): comm, stat, wchan, stack).

use std::{fs, io};

use agent_protocol::limits::STACKS_BYTES;
use policy::{Permit, action::DumpStacks};

const THREADS: &str = "/proc/self/task";

/// Reads the stacks. The permit is already dropped, so that other requests do not wait.
///
/// # Errors
/// There is no /proc.
pub fn read(permit: Permit<'_, DumpStacks>) -> io::Result<String> {
    permit.commit();
    let mut text = String::new();
    for entry in fs::read_dir(THREADS)? {
        let thread = entry?.path();
        // A thread may exit meanwhile, and not every kernel has every file.
        let file = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
        let name = thread.file_name().unwrap_or_default().to_string_lossy();
        let state = file("stat")
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next())
            .unwrap_or('?');
        text.push_str(&format!(
            "{name} {} {state} {}\n{}",
            file("comm").trim_end(),
            file("wchan"),
            file("stack")
        ));
        if text.len() >= STACKS_BYTES {
            break;
        }
    }
    let end = (0..=STACKS_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Enforcer, OPEN_DOOR};

    #[test]
    fn every_thread_has_a_line() {
        let mut enforcer = Enforcer::new(OPEN_DOOR).unwrap();
        let text = read(enforcer.enforce(DumpStacks {}).unwrap()).unwrap();
        assert!(text.lines().count() >= 2 && text.len() <= STACKS_BYTES, "{text}");
    }
}
