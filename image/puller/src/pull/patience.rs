//! Patience with a registry that is not there yet: a pod's network may be configured before anything in it, or its name server, answers.

use registry_client::{PullError, RegistryName};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Pause after the first failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Repeats a request while its registry is absent, until `wait` has passed.
///
/// # Errors
/// Those of the last request.
pub async fn while_absent<T, F>(wait: Duration, request: impl Fn() -> F) -> Result<T, PullError>
where
    F: Future<Output = Result<T, PullError>>,
{
    let end = Instant::now() + wait;
    let mut pause = PAUSE_MIN;
    loop {
        match request().await {
            Err(error) if error.cause.is_absence() && Instant::now() + pause <= end => {}
            done => return done,
        }
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Whether nobody needs to be asked where the registry is.
pub fn is_address(registry: &RegistryName) -> bool {
    let name = registry.as_str();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok()
}

/// The part of a message that says who was asked for an address.
pub fn asked(nameservers: &[IpAddr]) -> String {
    let servers: Vec<_> = nameservers.iter().map(IpAddr::to_string).collect();
    match servers.is_empty() {
        true => String::new(),
        false => format!(", asking {} for its address", servers.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry_client::{Cause, Step};
    use std::cell::Cell;

    fn failed(cause: Cause) -> PullError {
        PullError {
            step: Step::Ping,
            repository: "r.corp/app".to_owned(),
            cause: Box::new(cause),
        }
    }

    fn status(status: u16) -> Cause {
        Cause::Status { status, message: None }
    }

    /// Requests that are made, and the seconds that they take, if the first `absences` find nobody.
    async fn made(wait: u64, absences: u32, then: Result<(), u16>) -> (Result<(), u16>, u32, f64) {
        let (count, start) = (Cell::new(0), Instant::now());
        let done = while_absent(Duration::from_secs(wait), async || {
            count.set(count.get() + 1);
            match count.get() <= absences {
                true => Err(failed(status(503))),
                false => then.map_err(|code| failed(status(code))),
            }
        });
        let done = done.await.map_err(|error| match *error.cause {
            Cause::Status { status, .. } => status,
            other => panic!("{other}"),
        });
        (done, count.get(), start.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_is_asked_until_it_is_there_or_it_was_enough() {
        assert_eq!(made(30, 0, Ok(())).await, (Ok(()), 1, 0.0));
        let (done, requests, seconds) = made(30, 3, Ok(())).await;
        assert_eq!((done, requests), (Ok(()), 4));
        assert!((0.7..0.8).contains(&seconds), "{seconds}");
        let (done, requests, seconds) = made(30, u32::MAX, Ok(())).await;
        assert_eq!(done, Err(503));
        assert!(requests > 8 && (20.0..=30.0).contains(&seconds), "{requests} in {seconds}");
        assert_eq!(made(0, u32::MAX, Ok(())).await, (Err(503), 1, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_waited_for_again() {
        assert_eq!(made(30, 0, Err(404)).await, (Err(404), 1, 0.0));
        assert_eq!(made(30, 1, Err(500)).await.0, Err(500));
    }

    #[test]
    fn who_is_asked_is_named() {
        for (name, expected) in [
            ("10.88.0.1:5000", true),
            ("[fd00::1]:5000", true),
            ("[::1]", true),
            ("10.0.0.1", true),
        ] {
            assert_eq!(is_address(&RegistryName::new(name)), expected, "{name}");
        }
        assert!(!is_address(&RegistryName::new("r.corp:5000")));
        assert_eq!(asked(&[]), "");
        let two = ["10.0.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        assert_eq!(asked(&two), ", asking 10.0.0.10 and fd00::a for its address");
    }
}
