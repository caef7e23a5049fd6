//! Signals to this program: passed on to the container, or the end of what is not a container yet.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A signal that the container gets.
    Passed(u32),
    /// The terminal's size has changed.
    Resized,
}

/// Receives signals from its creation on.
pub struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    user: [Signal; 2],
    window: Signal,
}

impl Signals {
    /// Begins to receive.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
            window: signal(SignalKind::window_change())?,
        })
    }

    /// The next one. May be given up at any time.
    pub async fn next(&mut self) -> Event {
        let [user1, user2] = &mut self.user;
        let kind = tokio::select! {
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = user1.recv() => SignalKind::user_defined1(),
            _ = user2.recv() => SignalKind::user_defined2(),
            _ = self.window.recv() => return Event::Resized,
        };
        Event::Passed(kind.as_raw_value().unsigned_abs())
    }

    /// The next one that ends a program.
    pub async fn end(&mut self) -> u32 {
        loop {
            if let Event::Passed(number) = self.next().await {
                return number;
            }
        }
    }
}

impl Signals {
    /// The next one that ends a program, of those that come after some time: what takes no longer is not interrupted.
    pub async fn end_after(&mut self, patience: Duration) -> u32 {
        let patient = Instant::now() + patience;
        loop {
            let number = self.end().await;
            if Instant::now() >= patient {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_is_received_by_its_number_and_a_new_size_ends_nothing() {
        let mut signals = Signals::new().unwrap();
        let send = |name: &str| {
            let status = std::process::Command::new("kill")
                .args(["-s", name, &std::process::id().to_string()])
                .status();
            assert!(status.unwrap().success());
        };
        send("WINCH");
        assert_eq!(signals.next().await, Event::Resized);
        send("WINCH");
        send("USR2");
        assert_eq!(signals.end().await, 12);
    }
}
