//! The policy of a run: it allows this one process on these layers, and the signals that a terminal or a supervisor sends.

use crate::process::Process;
use oci::Digest;
use policy_tools::{Config, Container, EnvRule, GenerateError, IdName, Pin, Strategy, User, pinned};
use std::path::Path;

/// What every run may be sent: SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGUSR1, SIGUSR2, SIGTERM
const SIGNALS: [i32; 7] = [1, 2, 3, 9, 10, 12, 15];

/// The policy's text, which names the image and its digest. `layers`: root hashes, bottom first.
pub fn generate(process: &Process, layers: Vec<String>, image: &str, digest: Digest) -> Result<String, GenerateError> {
    let text = policy_tools::generate(&configuration(process, layers, image), Path::new(""))?;
    let pin = Pin {
        image: image.to_owned(),
        digest,
    };
    Ok(pinned(&text, &[pin]))
}

fn configuration(process: &Process, layers: Vec<String>, image: &str) -> Config {
    let env_rule = process.env.iter().map(|entry| EnvRule {
        rule: entry.clone(),
        required: true,
        ..EnvRule::default()
    });
    let container = Container {
        image_name: Some(image.to_owned()),
        layers,
        command: process.args.clone(),
        working_dir: Some(process.cwd.clone()),
        env_rule: env_rule.collect(),
        user: Some(user(&process.user)),
        signals: signals(process),
        allow_stdio_access: true,
        ..Container::default()
    };
    Config {
        container: vec![container],
        ..Config::default()
    }
}

/// Those of every run, and the image's own stop signal.
fn signals(process: &Process) -> Vec<i32> {
    let own = process.stop_signal.filter(|number| !SIGNALS.contains(number));
    SIGNALS.into_iter().chain(own).collect()
}

/// The user by number or name, as it is written; empty is root.
fn user(text: &str) -> User {
    let id_name = |text: &str| IdName {
        strategy: if text.bytes().all(|b| b.is_ascii_digit()) {
            Strategy::Id
        } else {
            Strategy::Name
        },
        rule: text.to_owned(),
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    User {
        user_idname: id_name(if user.is_empty() { "0" } else { user }),
        group_idname: vec![group.map_or_else(IdName::default, id_name)],
        ..User::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy_tools::pins;

    fn text(user: &str, env: &[&str]) -> String {
        let process = Process {
            args: vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()],
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            cwd: "/srv".to_owned(),
            user: user.to_owned(),
            terminal: false,
            stop_signal: Some(37),
        };
        generate(&process, vec!["ab".repeat(32)], "docker.io/library/app:1", Digest::of(b"app")).unwrap()
    }

    #[test]
    fn it_allows_the_process_and_names_the_image() {
        let text = text("", &["PATH=/bin", "A=1"]);
        policy::Enforcer::new(&text).unwrap();
        assert_eq!(pins(&text)[0].image, "docker.io/library/app:1");
        for part in ["\"A=1\"", "\"/srv\"", "abab", "[\"sh\",\"-c\",\"id\"]"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn the_stop_signal_of_the_image_may_be_sent() {
        assert!(text("", &[]).contains("\"signals\": [1,2,3,9,10,12,15,37]"));
    }

    #[test]
    fn the_user_is_pinned_by_number_or_name() {
        let shown = |text: &str| {
            let user = user(text);
            let word = |id: &IdName| format!("{}={}", id.strategy.as_str(), id.rule);
            (word(&user.user_idname), word(&user.group_idname[0]))
        };
        let pair = |user: &str, group: &str| (user.to_owned(), group.to_owned());
        assert_eq!(shown(""), pair("id=0", "any="));
        assert_eq!(shown("app"), pair("name=app", "any="));
        assert_eq!(shown("7:8"), pair("id=7", "id=8"));
        assert_eq!(shown("app:staff"), pair("name=app", "name=staff"));
        // The reader of the policy judges by the same words.
        policy::Enforcer::new(&text("app:8", &[])).unwrap();
    }
}
