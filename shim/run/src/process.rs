//! The container's process: the image's configuration, and what the command line says otherwise.

use oci::{ImageConfig, UnknownSignal};

/// Environment of images that have no `PATH`.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a process with a terminal is told of it, as `ctr run --tty` does.
const TERM: &str = "TERM=xterm";

/// What the command line says of the process.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replaces the image's CMD; ENTRYPOINT stays before it.
    pub command: Vec<String>,
    /// Replaces the image's ENTRYPOINT, and its CMD; empty for none.
    pub entrypoint: Option<String>,
    /// `NAME=VALUE`, over the image's.
    pub env: Vec<String>,
    /// Replaces the image's working directory.
    pub cwd: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// All streams are one terminal.
    pub terminal: bool,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=VALUE`, each name once.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty for root. Names are those of the image's files, which the guest reads.
    pub user: String,
    /// All streams are one terminal.
    pub terminal: bool,
    /// The signal by which the image is to be ended, if it names one.
    pub stop_signal: Option<i32>,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProcessError {
    /// Nothing says what to run.
    #[error("the image has neither ENTRYPOINT nor CMD: give a command")]
    NoCommand,
    /// Not an environment variable.
    #[error("--env {0:?} is not NAME=VALUE")]
    Env(String),
    /// Relative.
    #[error("the working directory {0:?} is not absolute: give one with --cwd")]
    Cwd(String),
    /// The image's stop signal is none.
    #[error(transparent)]
    StopSignal(#[from] UnknownSignal),
}

impl Process {
    /// Joins both.
    pub fn new(image: &ImageConfig, overrides: &Overrides) -> Result<Self, ProcessError> {
        let entrypoint = match &overrides.entrypoint {
            Some(program) => [program.clone()].into_iter().filter(|program| !program.is_empty()).collect(),
            None => image.entrypoint.clone().unwrap_or_default(),
        };
        let command = match (overrides.command.is_empty(), &overrides.entrypoint) {
            (true, None) => image.cmd.clone().unwrap_or_default(),
            _ => overrides.command.clone(),
        };
        let args = [entrypoint, command].concat();
        if args.is_empty() {
            return Err(ProcessError::NoCommand);
        }
        if let Some(bad) = overrides.env.iter().find(|entry| name(entry).is_empty() || !entry.contains('=')) {
            return Err(ProcessError::Env(bad.clone()));
        }
        let mut env = Vec::new();
        let terminal = overrides.terminal.then(|| TERM.to_owned());
        let image_env = image.env.iter().flatten().cloned();
        for entry in [DEFAULT_PATH.to_owned()]
            .into_iter()
            .chain(terminal)
            .chain(image_env)
            .chain(overrides.env.iter().cloned())
        {
            set(&mut env, entry);
        }
        let cwd = overrides.cwd.clone().unwrap_or_else(|| image.working_dir.clone());
        let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
        if !cwd.starts_with('/') {
            return Err(ProcessError::Cwd(cwd));
        }
        Ok(Self {
            args,
            env,
            cwd,
            user: overrides.user.clone().unwrap_or_else(|| image.user.clone()),
            terminal: overrides.terminal,
            stop_signal: image.stop_signal()?,
        })
    }
}

fn name(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

/// Appends a variable, or replaces its value where it stands.
fn set(env: &mut Vec<String>, entry: String) {
    match env.iter_mut().find(|old| name(old) == name(&entry)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            user: "app".to_owned(),
            env: Some(words("PATH=/bin A=1")),
            entrypoint: Some(words("/entry -x")),
            cmd: Some(words("serve now")),
            working_dir: "/srv".to_owned(),
            stop_signal: "SIGQUIT".to_owned(),
        }
    }

    fn args(overrides: Overrides) -> Vec<String> {
        Process::new(&image(), &overrides).unwrap().args
    }

    #[test]
    fn a_command_replaces_cmd_and_an_entrypoint_both() {
        let command = || words("check it");
        assert_eq!(args(Overrides::default()), words("/entry -x serve now"));
        assert_eq!(
            args(Overrides {
                command: command(),
                ..Overrides::default()
            }),
            words("/entry -x check it")
        );
        let entrypoint = |program: &str, command| Overrides {
            entrypoint: Some(program.to_owned()),
            command,
            ..Overrides::default()
        };
        assert_eq!(args(entrypoint("/sh", command())), words("/sh check it"));
        assert_eq!(args(entrypoint("/sh", Vec::new())), words("/sh"));
        assert_eq!(args(entrypoint("", command())), words("check it"));
        let none = Process::new(&image(), &entrypoint("", Vec::new()));
        assert_eq!(none, Err(ProcessError::NoCommand));
    }

    #[test]
    fn each_variable_is_there_once_with_its_last_value() {
        let overrides = Overrides {
            env: words("A=2 B=3 B=4"),
            cwd: Some("/tmp".to_owned()),
            user: Some("7:8".to_owned()),
            terminal: true,
            ..Overrides::default()
        };
        let process = Process::new(&image(), &overrides).unwrap();
        assert_eq!(process.env, words("PATH=/bin TERM=xterm A=2 B=4"));
        assert_eq!((process.cwd.as_str(), process.user.as_str()), ("/tmp", "7:8"));
        let bare = Process::new(
            &ImageConfig::default(),
            &Overrides {
                command: words("sh"),
                ..Overrides::default()
            },
        );
        let bare = bare.unwrap();
        assert_eq!((bare.env, bare.cwd.as_str()), (vec![DEFAULT_PATH.to_owned()], "/"));
    }

    #[test]
    fn what_is_no_variable_or_directory_is_refused() {
        for bad in ["A", "=1", ""] {
            let overrides = Overrides {
                env: vec![bad.to_owned()],
                ..Overrides::default()
            };
            assert_eq!(Process::new(&image(), &overrides), Err(ProcessError::Env(bad.to_owned())));
        }
        let overrides = Overrides {
            cwd: Some("srv".to_owned()),
            ..Overrides::default()
        };
        assert_eq!(Process::new(&image(), &overrides), Err(ProcessError::Cwd("srv".to_owned())));
    }
}
