//! containerd's events, by `ctr events`.

use super::{Ended, Program};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How often the test event is caused until a new listener receives it.
const TEST_EVENT_INTERVAL: Duration = Duration::from_secs(2);
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// A changed namespace label, an event that nothing else in a story causes.
const TEST_EVENT: &str = "/namespaces/update";

/// A running listener.
pub struct Listener(Program);

/// The fields of a task's event that stories check.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// Such as `/tasks/exit`.
    #[serde(skip)]
    pub topic: String,
    /// The container.
    #[serde(default)]
    pub container_id: String,
    /// The process: the container's id again, or an exec's.
    #[serde(default)]
    pub id: String,
    /// Exit status; absent means 0.
    #[serde(default)]
    pub exit_status: u32,
}

impl Listener {
    /// Starts listening; returns once it receives events.
    pub fn listen() -> Result<Self> {
        let program = Program::start(&["ctr", "events"], &[])?;
        let end = Instant::now() + LISTENS_WITHIN;
        for n in 0.. {
            Ended::of(&["ctr", "namespaces", "label", "default", &format!("casemate.listener={n}")])?.exits_with(0)?;
            let again = Instant::now() + TEST_EVENT_INTERVAL;
            while Instant::now() < again {
                if program.stdout_so_far().contains(TEST_EVENT) {
                    return Ok(Self(program));
                }
                std::thread::sleep(POLL);
            }
            if Instant::now() > end {
                bail!("`ctr events` receives nothing");
            }
        }
        bail!("`ctr events` receives nothing")
    }

    /// Every event received so far for one container, in order.
    pub fn of(&self, container: &str) -> Result<Vec<Event>> {
        let text = self.0.stdout_so_far();
        // The last line may be incomplete.
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let events: Result<Vec<_>> = whole.lines().filter_map(parse).collect();
        Ok(events?.into_iter().filter(|event| event.container_id == container).collect())
    }

    /// Stops listening.
    pub fn stop(self) {
        self.0.stop();
    }
}

/// `2026-01-01 00:00:00.0 +0000 UTC default /tasks/exit {"container_id":"x",…}`; events with other topics are ignored.
fn parse(line: &str) -> Option<Result<Event>> {
    let (before, json) = line.split_once(" {")?;
    let topic = before.rsplit(' ').next().filter(|topic| topic.starts_with("/tasks/"))?;
    let event = serde_json::from_str::<Event>(&format!("{{{json}")).with_context(|| format!("not an event: {line}"));
    Some(event.map(|event| Event {
        topic: topic.to_owned(),
        ..event
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_read_from_what_ctr_prints() {
        let line = "2026-11-22 17:30:28.1 +0000 UTC default /tasks/exit \
                    {\"container_id\":\"a\",\"id\":\"b\",\"pid\":7,\"exit_status\":137,\"exited_at\":\"2026-11-22T17:30:28Z\"}";
        let event = parse(line).unwrap().unwrap();
        assert_eq!(
            event,
            Event {
                topic: "/tasks/exit".into(),
                container_id: "a".into(),
                id: "b".into(),
                exit_status: 137,
            }
        );
        assert!(parse("2026 +0000 UTC default /namespaces/update {\"name\":\"default\"}").is_none());
        assert!(parse("a line of something else").is_none());
        assert!(parse("x /tasks/exit {broken").unwrap().is_err());
    }
}
