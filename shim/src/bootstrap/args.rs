//! containerd's command line: Go's flag syntax, then an action.

use super::BootstrapError;
use agent_protocol::valid_caller_id;
use std::path::PathBuf;

/// What this process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bind the socket, start the serving process, print the address.
    Start,
    /// Remove what a dead shim left behind.
    Delete,
    /// Serve the Task API on the listener that is standard input.
    Serve,
    /// Print the version.
    Version,
    /// Print a `RuntimeInfo`.
    Info,
}

/// containerd's flags.
#[derive(Clone, Debug)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// Path of containerd's binary; unused, since events go over ttrpc, but passed on.
    pub publish_binary: String,
    /// Bundle directory; empty: the working directory.
    pub bundle: PathBuf,
    /// Log at debug level.
    pub debug: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// An unknown flag or action, a missing value, or an id or namespace that is no identifier.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, BootstrapError> {
        let mut args = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            publish_binary: String::new(),
            bundle: PathBuf::new(),
            debug: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                args.action = action(&argument)?;
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => args.debug = inline.as_deref() != Some("false"),
                "v" | "version" => args.action = Action::Version,
                "info" => args.action = Action::Info,
                "namespace" | "id" | "address" | "publish-binary" | "bundle" => {
                    let value = inline
                        .or_else(|| arguments.next())
                        .ok_or_else(|| BootstrapError::FlagValue(argument.clone()))?;
                    args.set(name, value);
                }
                _ => return Err(BootstrapError::UnknownFlag(argument)),
            }
        }
        args.check()?;
        Ok(args)
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "publish-binary" => self.publish_binary = value,
            _ => self.bundle = PathBuf::from(value),
        }
    }

    /// Ids and namespaces become part of paths.
    fn check(&self) -> Result<(), BootstrapError> {
        if matches!(self.action, Action::Version | Action::Info) {
            return Ok(());
        }
        for (name, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                return Err(BootstrapError::MissingFlag(name));
            }
            valid_caller_id(value).map_err(|_| BootstrapError::Identifier(value.clone()))?;
        }
        Ok(())
    }

    /// A group id comes from an annotation and becomes part of a path as well.
    pub(super) fn check_group(id: &str) -> Result<(), BootstrapError> {
        valid_caller_id(id).map_err(|_| BootstrapError::Identifier(id.to_owned()))
    }

    /// The bundle: the flag's value, else the working directory.
    ///
    /// # Errors
    /// When there is no working directory.
    pub fn bundle_dir(&self) -> Result<PathBuf, BootstrapError> {
        if self.bundle.as_os_str().is_empty() {
            std::env::current_dir().map_err(|e| BootstrapError::Io("find the working directory", e))
        } else {
            Ok(self.bundle.clone())
        }
    }
}

fn action(word: &str) -> Result<Action, BootstrapError> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        other => Err(BootstrapError::UnknownAction(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, BootstrapError> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_of_containerd_1_6() {
        let args =
            parse("-namespace default -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id web -debug start")
                .unwrap();
        assert_eq!(
            (args.action, args.namespace.as_str(), args.id.as_str(), args.debug),
            (Action::Start, "default", "web", true)
        );
        assert_eq!(args.address, "/run/containerd/containerd.sock");
    }

    #[test]
    fn go_accepts_two_dashes_and_equals_signs() {
        let args = parse("--namespace=k8s.io --id=a --debug=false --bundle=/b delete").unwrap();
        assert_eq!((args.action, args.debug), (Action::Delete, false));
        assert_eq!(args.bundle_dir().unwrap(), PathBuf::from("/b"));
    }

    #[test]
    fn no_action_serves_and_version_needs_no_id() {
        assert_eq!(parse("-namespace n -id i").unwrap().action, Action::Serve);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn errors_name_the_flag() {
        assert!(matches!(parse("-frobnicate"), Err(BootstrapError::UnknownFlag(_))));
        assert!(matches!(parse("-namespace n -id"), Err(BootstrapError::FlagValue(_))));
        assert!(matches!(parse("-namespace n -id i stop"), Err(BootstrapError::UnknownAction(_))));
        assert!(matches!(parse("-namespace n start"), Err(BootstrapError::MissingFlag("id"))));
        assert!(matches!(parse("-namespace n -id ../x delete"), Err(BootstrapError::Identifier(_))));
    }
}
