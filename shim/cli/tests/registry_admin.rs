//! `casemate registry admin` and `casemate policy generate --protection`, as an operator runs them.

mod token_service;

use registry_testing::program::installed;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write as _};
use std::process::{Command, Output, Stdio};
use token_service::{Service, casemate};

fn service() -> Option<Service> {
    installed("the token service's operator", &["curl"]).then(|| Service::start(None))
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_is_added_is_listed_and_what_is_removed_is_not() {
    let Some(service) = service() else { return };
    service.add_user("ann", &["--administrator"]);
    service.admin(&["user", "add", "robot", "--no-password"]);
    service.admin(&["group", "add", "shop"]);
    service.admin(&["project", "add", "shop/till", "--public"]);
    service.admin(&["member", "set", "shop", "robot", "developer"]);
    service.admin(&["member", "set", "shop/till", "robot", "owner"]);
    let rule = service.admin(&["rule", "add", "shop/till", "shop/till/live*", "--push", "owner"]);
    let lines: Vec<Vec<&str>> = rule.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PATTERN", "PUSH", "DELETE"]);
    assert_eq!(lines[1][1..], ["shop/till/live*", "owner", "-"]);
    service.admin(&["rule", "set", "shop/till", "shop/till/live*", "--push", "", "--delete", "no_one"]);
    service.admin(&["tag-rule", "add", "shop/till", "^v", "--push", "maintainer", "--delete", "owner"]);

    let list = |words: &[&str]| json(&service.admin(&[&["--json"], words].concat()));
    let users = list(&["user", "list"]);
    assert_eq!(users[0]["name"], "ann");
    assert_eq!((&users[0]["administrator"], &users[0]["password"]), (&true.into(), &true.into()));
    assert_eq!((&users[1]["name"], &users[1]["password"]), (&"robot".into(), &false.into()));
    assert_eq!(list(&["member", "list", "shop"])[0]["role"], "developer");
    assert_eq!(list(&["member", "list", "shop/till"])[0]["role"], "owner");
    let rules = list(&["rule", "list", "shop/till"]);
    assert_eq!((&rules[0]["push"], &rules[0]["delete"]), (&Value::Null, &"no_one".into()));
    assert_eq!(list(&["tag-rule", "list", "shop/till"])[0]["delete"], "owner");
    assert_eq!(list(&["project", "list"])[0]["public"], true);
    service.admin(&["project", "hide", "shop/till"]);
    assert_eq!(list(&["project", "list"])[0]["public"], false);

    service.admin(&["rule", "remove", "shop/till", "shop/till/live*"]);
    service.admin(&["tag-rule", "remove", "shop/till", "^v"]);
    service.admin(&["member", "remove", "shop", "robot"]);
    assert_eq!(list(&["rule", "list", "shop/till"]), Value::Array(Vec::new()));
    assert_eq!(list(&["member", "list", "shop"]), Value::Array(Vec::new()));
    service.admin(&["project", "remove", "shop/till"]);
    service.admin(&["group", "remove", "shop"]);
    service.admin(&["user", "remove", "robot"]);
    assert_eq!(list(&["user", "list"]).as_array().unwrap().len(), 1);
    let changes = list(&["audit", "--outcome", "changed", "--limit", "1000"]);
    assert!(changes.as_array().unwrap().len() >= 15, "{changes}");
    assert!(changes.as_array().unwrap().iter().all(|entry| entry["actor"] == "command line"));
}

#[test]
fn a_password_counts_at_once_and_blocking_too() {
    let Some(service) = service() else { return };
    service.add_user("ann", &[]);
    assert_eq!(service.ask_as("ann", &[]).status, 200);
    service.admin_reading(&["user", "password", "ann", "--password-file", "-"], "another one\n");
    assert_eq!(service.ask_as("ann", &[]).status, 401);
    assert_eq!(service.ask(Some("ann:another one"), &[]).status, 200);
    service.admin(&["user", "block", "ann"]);
    assert_eq!(service.ask(Some("ann:another one"), &[]).refusal(), "403 DENIED access forbidden");
    service.admin(&["user", "unblock", "ann"]);
    assert_eq!(service.ask(Some("ann:another one"), &[]).status, 200);
}

/// Reads until a text has come.
fn read_until(from: &mut impl Read, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut byte = [0];
        assert_eq!(from.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
}

#[test]
fn a_password_is_asked_for_on_a_terminal_that_does_not_show_it() {
    let Some(service) = service() else { return };
    for (typed, succeeds) in [
        (["hunter2-long\n", "hunter2-long\n"], true),
        (["hunter3-long\n", "hunter4-long\n"], false),
        (["hunter3-long\n", "hunt\u{3}"], false),
    ] {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut child = casemate()
            .args(["registry", "admin", "--database", &service.database, "user", "add", "ann"])
            .stdin(terminal.slave.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stderr.take().unwrap();
        let mut keyboard = fs::File::from(terminal.master);
        for (prompt, line) in ["Password: ", "Again: "].into_iter().zip(typed) {
            read_until(&mut said, prompt);
            keyboard.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(child.wait().unwrap().success(), succeeds, "{typed:?}");
        // What the terminal would show ends with this word.
        fs::File::from(terminal.slave).write_all(b"end").unwrap();
        let mut shown = [0; 100];
        let length = keyboard.read(&mut shown).unwrap();
        assert_eq!(String::from_utf8_lossy(&shown[..length]), "end");
    }
    assert_eq!(service.ask(Some("ann:hunter2-long"), &[]).status, 200);
}

#[test]
fn a_tokens_secret_is_alone_on_standard_output_and_shown_once() {
    let Some(service) = service() else { return };
    service.add_user("ann", &[]);
    let output = service.try_admin(&["token", "personal", "ann", "laptop", "--read"], "");
    let secret = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(secret.starts_with("cmp_") && secret.lines().count() == 1, "{secret}");
    let secret = secret.trim_end();
    assert!(!error(&output).contains(secret) && error(&output).contains("not shown again"));
    assert_eq!(service.ask(Some(&format!("ann:{secret}")), &[]).status, 200);
    for words in [
        &["token", "list"][..],
        &["--json", "token", "list"],
        &["--json", "audit"],
        &["export"],
    ] {
        assert!(!service.admin(words).contains(&secret[4..]));
    }
    assert!(!service.log().contains(&secret[4..]));
}

#[test]
fn what_is_refused_says_why_and_shows_no_secret() {
    let Some(service) = service() else { return };
    service.add_user("ann", &[]);
    service.admin(&["project", "add", "shop/till"]);
    service.admin(&["rule", "add", "shop/till", "shop/till", "--push", "owner"]);
    for (words, input, code, says) in [
        (&["user", "add", "ann", "--password-file", "-"][..], "hunter2-long", 3, "taken"),
        (
            &["user", "add", "gitlab-ci-token", "--password-file", "-"],
            "hunter2-long",
            3,
            "name",
        ),
        (&["user", "add", "bob"], "hunter2-long", 3, "--password-file"),
        (
            &["user", "add", "bob", "--password-file", "-"],
            "\nhunter2-long",
            3,
            "the password is empty",
        ),
        (&["user", "remove", "bob"], "", 3, "there is no user \"bob\""),
        (
            &["rule", "add", "shop/till", "Shop/%", "--push", "owner"],
            "",
            3,
            "should start with the project's full path",
        ),
        (
            &["rule", "add", "shop/till", "shop/till", "--push", "admin"],
            "",
            3,
            "has already been taken",
        ),
        (&["rule", "add", "shop/till", "shop/till/a"], "", 3, "must have at least"),
        (
            &["rule", "add", "shop/till", "shop/till/a", "--push", "developer"],
            "",
            3,
            "maintainer, owner, admin, no_one",
        ),
        (&["rule", "remove", "shop/till", "99"], "", 3, "shop/till has no rule \"99\""),
        (
            &["tag-rule", "add", "shop/till", "(", "--push", "owner", "--delete", "owner"],
            "",
            3,
            "RE2",
        ),
        (
            &["member", "set", "shop/none", "ann", "owner"],
            "",
            3,
            "neither a project nor a group",
        ),
        (&["token", "personal", "ann", "x"], "", 3, "may do nothing"),
        (&["token", "revoke", "99"], "", 3, "not found"),
        (
            &["member", "set", "shop/till", "ann", "king"],
            "",
            2,
            "guest, reporter, developer, maintainer, owner",
        ),
        (&["project", "add", "Shop"], "", 2, "lower-case"),
        (&["user"], "", 2, "Usage"),
    ] {
        let output = service.try_admin(words, input);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", error(&output));
        assert!(error(&output).contains(says), "{words:?}: {says:?} is not in {}", error(&output));
        assert!(!error(&output).contains("hunter2"), "{words:?}");
    }
    let url = "postgres://casemate:hunter2@127.0.0.1:1/none";
    let output = casemate()
        .args(["registry", "admin", "--database", url, "user", "list"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        error(&output).contains("cannot open the database") && !error(&output).contains("hunter2"),
        "{}",
        error(&output)
    );
}

#[test]
fn rules_live_in_a_file() {
    let Some(service) = service() else { return };
    service.add_user("ann", &[]);
    service.admin(&["group", "add", "shop"]);
    service.admin(&["project", "add", "shop/till", "--public"]);
    service.admin(&["member", "set", "shop/till", "ann", "owner"]);
    service.admin(&["rule", "add", "shop/till", "shop/till*", "--push", "owner"]);
    let exported = service.admin(&["export"]);
    let file = service.path("rules.toml");
    fs::write(&file, &exported).unwrap();
    let file = file.display().to_string();
    assert_eq!(service.admin(&["import", &file, "--dry-run"]), "");

    fs::write(&file, exported.replace("push = \"owner\"", "push = \"no_one\"")).unwrap();
    let output = service.try_admin(&["import", &file, "--dry-run"], "");
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    let difference = String::from_utf8(output.stdout).unwrap();
    assert!(difference.contains("no_one") && difference.lines().count() == 1, "{difference}");
    assert_eq!(service.admin(&["export"]), exported);
    assert_eq!(service.admin(&["import", &file]), difference);
    assert!(service.admin(&["rule", "list", "shop/till"]).contains("no_one"));

    // Another database becomes the same, once it has the user.
    let other = Service::start(None);
    let output = other.try_admin(&["import", &file], "");
    assert!(!output.status.success() && error(&output).contains("ann"), "{}", error(&output));
    assert!(!other.admin(&["project", "list"]).contains("shop"));
    other.add_user("ann", &[]);
    other.admin(&["import", &file]);
    assert_eq!(other.admin(&["export"]), service.admin(&["export"]));
    // A file that was cut off deletes nothing by itself.
    let output = other.try_admin(&["import", "-"], "");
    assert_eq!(output.status.code(), Some(3));
    assert!(error(&output).contains("--delete"), "{}", error(&output));
    assert_eq!(other.admin(&["export"]), service.admin(&["export"]));
    for bad in ["projects = 1", "[[project]]\npath = '../x'", "nonsense"] {
        let output = other.try_admin(&["import", "-"], bad);
        assert_eq!(output.status.code(), Some(3), "{bad}: {}", error(&output));
    }
}

#[test]
fn a_policys_repositories_are_held_against_the_rules() {
    let Some(service) = service() else { return };
    service.add_user("ann", &[]);
    service.admin(&["project", "add", "team/app", "--public"]);
    service.admin(&["member", "set", "team/app", "ann", "maintainer"]);
    let token = service.new_token(&["personal", "ann", "rules", "--api"]);
    let config = "[[fragment]]\nissuer = 'did:x509:0:sha256:x::subject:CN:a'\nfeed = 'r.corp/team/app/base'\nminimum_svn = '1'\n\
                  [[fragment]]\nissuer = 'did:x509:0:sha256:x::subject:CN:a'\nfeed = 'r.corp/elsewhere/app'\nminimum_svn = '1'\n";
    fs::write(service.path("policy.toml"), config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let generate = |token: &str, level: &str| -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_casemate"))
            .args(["policy", "generate", "--protection-level", level, "--config"])
            .arg(service.path("policy.toml"))
            .args(["--protection", &format!("r.corp=http://127.0.0.1:{}", service.port)])
            .env("CASEMATE_REGISTRY_TOKEN", token)
            .env("XDG_CACHE_HOME", directory.path())
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", error(&output));
        assert!(!error(&output).contains(token));
        error(&output)
    };
    let open = "r.corp/team/app/base can be overwritten by every developer of its project: no rule protects it";
    let said = generate(&token, "maintainer");
    assert!(said.contains(open), "{said}");
    assert!(said.contains("who may overwrite r.corp/elsewhere/app is not known"), "{said}");
    service.admin(&["rule", "add", "team/app", "team/app/*", "--push", "maintainer"]);
    let said = generate(&token, "maintainer");
    assert!(!said.contains("r.corp/team/app"), "{said}");
    let said = generate(&token, "owner");
    assert!(
        said.contains("can be overwritten by every maintainer of its project: its rules ask for maintainer"),
        "{said}"
    );
    let said = generate("cmp_wrong", "maintainer");
    assert!(
        said.contains("who may overwrite r.corp/team/app/base is not known") && said.contains("personal token"),
        "{said}"
    );
}
