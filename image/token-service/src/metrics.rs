//! Counts for Prometheus (text format 0.0.4): no names, no addresses.

use crate::clock::Now;
use crate::keys::Keyring;
use registry_store::AuditOutcome;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram of answers, in microseconds.
const BUCKETS: [u64; 8] = [500, 1000, 2500, 5000, 10_000, 50_000, 250_000, 1_000_000];

/// The counts since the start.
#[derive(Default)]
pub(crate) struct Metrics {
    granted: AtomicU64,
    refused: AtomicU64,
    unauthorized: AtomicU64,
    unavailable: AtomicU64,
    login_failed: AtomicU64,
    throttled: AtomicU64,
    reload_failed: AtomicU64,
    answers: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS.len()],
    microseconds: AtomicU64,
}

fn one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    pub(crate) fn decided(&self, outcome: AuditOutcome) {
        match outcome {
            AuditOutcome::Granted => one(&self.granted),
            AuditOutcome::Refused => one(&self.refused),
            AuditOutcome::Unauthorized => one(&self.unauthorized),
            AuditOutcome::Changed => {}
        }
    }

    pub(crate) fn unavailable(&self) {
        one(&self.unavailable);
    }

    pub(crate) fn login_failed(&self) {
        one(&self.login_failed);
    }

    pub(crate) fn throttled(&self) {
        one(&self.throttled);
    }

    pub(crate) fn reload_failed(&self) {
        one(&self.reload_failed);
    }

    /// One answer, with the time that it took.
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        if let Some(count) = usize::from(status / 100).checked_sub(1).and_then(|class| self.answers.get(class)) {
            one(count);
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(took, Ordering::Relaxed);
        if let Some(bucket) = BUCKETS.iter().position(|bound| took <= *bound) {
            one(&self.buckets[bucket]);
        }
    }

    /// All of them as text.
    pub(crate) fn text(&self, keys: &Keyring, now: Now) -> String {
        let mut text = String::with_capacity(3000);
        let outcomes = [
            ("{outcome=\"granted\"}", &self.granted),
            ("{outcome=\"refused\"}", &self.refused),
            ("{outcome=\"unauthorized\"}", &self.unauthorized),
        ];
        counter(&mut text, "decisions_total", "Decisions on token requests.", &outcomes);
        for (name, help, count) in [
            ("unavailable_total", "Requests answered 503.", &self.unavailable),
            ("login_failures_total", "Logins with wrong credentials.", &self.login_failed),
            ("login_throttled_total", "Logins refused after too many failures.", &self.throttled),
            (
                "reload_failures_total",
                "Keys or certificates that could not be read again.",
                &self.reload_failed,
            ),
        ] {
            counter(&mut text, name, help, &[("", count)]);
        }
        let classes = [
            "{class=\"1xx\"}",
            "{class=\"2xx\"}",
            "{class=\"3xx\"}",
            "{class=\"4xx\"}",
            "{class=\"5xx\"}",
        ];
        let answers: Vec<_> = classes.into_iter().zip(&self.answers).collect();
        counter(&mut text, "http_responses_total", "HTTP answers.", &answers);
        self.histogram(&mut text);
        head(
            &mut text,
            "key_expiry_seconds",
            "Seconds until the signing certificate ends.",
            "gauge",
        );
        if let Some(key) = keys.now().first() {
            line(&mut text, "key_expiry_seconds", "", key.expires() - now.seconds());
        }
        text
    }

    fn histogram(&self, text: &mut String) {
        let name = "http_duration_seconds";
        head(text, name, "Time from a request's head to its answer.", "histogram");
        let mut sum = 0;
        for (bound, count) in BUCKETS.iter().zip(&self.buckets) {
            sum += count.load(Ordering::Relaxed);
            line(
                text,
                "http_duration_seconds_bucket",
                &format!("{{le=\"{}\"}}", *bound as f64 / 1e6),
                sum,
            );
        }
        let all: u64 = self.answers.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        line(text, "http_duration_seconds_bucket", "{le=\"+Inf\"}", all.max(sum));
        line(
            text,
            "http_duration_seconds_sum",
            "",
            self.microseconds.load(Ordering::Relaxed) as f64 / 1e6,
        );
        line(text, "http_duration_seconds_count", "", all.max(sum));
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP casemate_registry_{name} {help}\n# TYPE casemate_registry_{name} {kind}"
    );
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "casemate_registry_{name}{labels} {value}");
}

fn counter(text: &mut String, name: &str, help: &str, counts: &[(&str, &AtomicU64)]) {
    head(text, name, help, "counter");
    for (labels, count) in counts {
        line(text, name, labels, count.load(Ordering::Relaxed));
    }
}
