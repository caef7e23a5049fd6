//! A policy for one container, made by `casemate policy generate` from the image that L1 has.

use super::Ended;
use crate::testbed::images;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the harness put the images, each unpacked as an OCI layout.
pub const IMAGES: &str = "/job/images";

/// The text of a policy and its file.
pub struct Policy {
    config: String,
    text: String,
    digest: String,
}

/// What the policy allows.
pub struct Wanted {
    image: String,
    /// Directory with the image as an OCI layout.
    images: PathBuf,
    command: Vec<String>,
    environment: Vec<String>,
    execs: Vec<Vec<String>>,
    signals: Vec<u32>,
    properties: bool,
    logging: bool,
}

impl Policy {
    /// Starts the description of a policy for one container of `image`.
    pub fn of(image: &str) -> Wanted {
        Wanted {
            image: image.to_owned(),
            images: IMAGES.into(),
            command: Vec::new(),
            environment: Vec::new(),
            execs: Vec::new(),
            signals: Vec::new(),
            properties: false,
            logging: false,
        }
    }

    /// Generates a policy from a configuration and computes its digest.
    pub fn of_config(toml: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("policy-").tempdir();
        let dir = dir.context("cannot create a directory for the policy")?;
        let config = dir.path().join("policy.toml");
        std::fs::write(&config, toml).context("cannot write the policy's configuration")?;
        let file = dir.path().join("policy.rego");
        let words = [
            "casemate",
            "policy",
            "generate",
            "--config",
            path(&config)?,
            "--output",
            path(&file)?,
        ];
        Ended::of(&words)?.exits_with(0)?;
        let digest = Ended::of(&["casemate", "policy", "digest", path(&file)?])?.exits_with(0)?.text();
        let text = std::fs::read_to_string(&file).context("cannot read the policy")?;
        Ok(Policy {
            config: toml.to_owned(),
            text,
            digest,
        })
    }

    /// The configuration from which it was generated.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The Rego text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 in hex, as `casemate policy digest` prints it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The annotation that carries the policy.
    pub fn annotation(&self) -> String {
        format!("io.casemate.policy={}", STANDARD.encode(&self.text))
    }
}

impl Wanted {
    /// The directory of images, where it is not L1's.
    pub fn images(mut self, dir: &Path) -> Self {
        self.images = dir.to_owned();
        self
    }

    /// Sets the container's command.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Allows environment variables that match a regular expression.
    pub fn environment(mut self, pattern: &str) -> Self {
        self.environment.push(pattern.to_owned());
        self
    }

    /// Allows an exec.
    pub fn exec(mut self, words: &[&str]) -> Self {
        self.execs.push(words.iter().map(|word| (*word).to_owned()).collect());
        self
    }

    /// Allows signals to the container's init.
    pub fn signals(mut self, signals: &[u32]) -> Self {
        self.signals = signals.to_vec();
        self
    }

    /// Allows listing its processes and reading its statistics.
    pub fn properties(mut self) -> Self {
        self.properties = true;
        self
    }

    /// Allows the agent to log to the console.
    pub fn logging(mut self) -> Self {
        self.logging = true;
        self
    }

    /// Generates the policy and computes its digest.
    pub fn generate(&self) -> Result<Policy> {
        Policy::of_config(&self.to_toml()?)
    }
    /// The configuration, in the format of confcom and hcsshim's securitypolicytool; the image is an OCI layout on disk.
    fn to_toml(&self) -> Result<String> {
        let layout = self.images.join(images::file_name(&self.image).trim_end_matches(".tar"));
        let mut text = format!(
            "allow_properties_access = {}\nallow_runtime_logging = {}\n[[container]]\nimage_name = {}\nimage = {}\n",
            self.properties,
            self.logging,
            quoted(&self.image),
            quoted(path(&layout)?)
        );
        writeln!(text, "command = {}", list(&self.command))?;
        writeln!(text, "signals = {:?}", self.signals)?;
        writeln!(text, "allow_stdio_access = true")?;
        for words in &self.execs {
            writeln!(text, "[[container.exec_process]]\ncommand = {}\nsignals = [9, 15]", list(words))?;
        }
        for pattern in &self.environment {
            writeln!(text, "[[container.env_rule]]\nstrategy = \"re2\"\nrule = {}", quoted(pattern))?;
        }
        Ok(text)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// TOML's basic strings have the escapes of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(words: &[String]) -> String {
    serde_json::Value::from(words).to_string()
}
