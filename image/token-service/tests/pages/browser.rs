//! Chromium without a window, driven over WebDriver (W3C) as a person with a keyboard would.

use crate::http::exchange;
use registry_testing::program::{Program, free_port, installed};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const SPACE: &str = " ";
const CONTROL: &str = "\u{e009}";

/// A browser with one page.
pub struct Browser {
    session: String,
    address: SocketAddr,
    profile: TempDir,
    _driver: Program,
}

/// Whether there is one; says so where there is none.
pub fn is_installed(test: &str) -> bool {
    installed(test, &["chromium", "chromedriver"])
}

impl Browser {
    /// Starts Debian's chromedriver, and with it Chromium.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let driver = Program::start(&mut command, &profile.path().join("driver.log"), port);
        let mut browser = Self {
            session: String::new(),
            address: ([127, 0, 0, 1], port).into(),
            profile,
            _driver: driver,
        };
        let profile = format!("--user-data-dir={}", browser.profile.path().join("profile").display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1200,900",
            // Ends the browser with its driver, however that ends.
            "--remote-debugging-pipe",
            &profile,
        ];
        let options = json!({ "goog:chromeOptions": { "args": arguments } });
        let session = browser.command("POST", "", &json!({ "capabilities": { "alwaysMatch": options } }));
        browser.session = format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" || method == "DELETE" {
            String::new()
        } else {
            body.to_string()
        };
        let path = format!("/session{}{path}", self.session);
        let answer = exchange(self.address, method, &path, &[("Content-Type", "application/json")], &body);
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer.status, 200, "{method} {path}: {value}");
        value["value"].clone()
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// The path and query of the page, without its fragment.
    pub fn path(&self) -> String {
        self.ask("location.pathname + location.search").as_str().unwrap().to_owned()
    }

    /// The value of an expression in the page. The pages themselves have no script.
    pub fn ask(&self, expression: &str) -> Value {
        self.command(
            "POST",
            "/execute/sync",
            &json!({ "script": format!("return {expression};"), "args": [] }),
        )
    }

    /// Waits until an expression is true.
    pub fn wait_for(&self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        // A page that is being replaced has no answer yet.
        while self.ask(&format!("document.readyState == 'complete' && !!({expression})")) != json!(true) {
            assert!(Instant::now() < end, "{expression} at {}: {}", self.path(), self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the page says.
    pub fn text(&self) -> String {
        self.ask("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: &str) {
        let strokes = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })));
        self.keys(strokes.collect());
    }

    /// Replaces what a field holds.
    pub fn retype(&self, text: &str) {
        let mut strokes = vec![json!({ "type": "keyDown", "value": CONTROL })];
        strokes.extend(["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": "a" })));
        strokes.push(json!({ "type": "keyUp", "value": CONTROL }));
        self.keys(strokes);
        self.press(text);
    }

    fn keys(&self, strokes: Vec<Value>) {
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.command("POST", "/actions", &actions);
    }

    /// Presses Tab until the focus is on what the selector names, and sees that every stop on the way shows its focus.
    pub fn tab_to(&self, selector: &str) {
        for _ in 0..150 {
            self.press(TAB);
            let stop = self.ask(&format!(
                "(e => [e.matches({selector:?}), getComputedStyle(e).outlineStyle != 'none' || e == document.body, e.outerHTML])(document.activeElement)"
            ));
            assert_eq!(stop[1], true, "no focus is shown at {}", stop[2]);
            if stop[0] == true {
                return;
            }
        }
        panic!("no way to {selector} at {}: {}", self.path(), self.text());
    }

    /// The path of whatever the focus is on, then Enter, and the page after it.
    pub fn enter(&self, expected: &str) {
        self.press(ENTER);
        self.wait_for(&format!("location.pathname + location.search == {expected:?}"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.command("DELETE", "", &Value::Null);
        }
    }
}
