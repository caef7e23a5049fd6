//! The puller's filter of system calls.

use crate::bench::{Bench, disk};
use casemate_puller::filter::{self, RULES};
use nix::sys::signal::Signal;
use registry_testing::{
    authority::Authority,
    image::Image,
    section,
    server::{Answer, Server},
};
use std::{
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, ExitStatus},
};

/// Environment variable of a puller under test.
pub const PULLER: &str = "CASEMATE_TEST_PULLER";
/// The rule to omit.
const WITHOUT: &str = "CASEMATE_TEST_WITHOUT";
/// Environment variable of a process that makes one call under the filter.
const CALL: &str = "CASEMATE_TEST_CALL";
/// What a compromised puller would try.
const CALLS: [(&str, fn()); 6] = [
    ("listen", || drop(TcpListener::bind("127.0.0.1:0"))),
    ("a socket of vsock", || {
        drop(nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Vsock,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::empty(),
            None,
        ))
    }),
    ("exec", || drop(Command::new("/bin/true").status())),
    ("unlink", || drop(std::fs::remove_file("/nothing"))),
    ("kill", || {
        assert!(nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGCONT).is_ok())
    }),
    ("a mode", || {
        drop(std::fs::set_permissions(
            "/nothing",
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        ))
    }),
];

/// What this process is for, if it is not the test.
pub fn child() -> Option<ExitCode> {
    if std::env::var_os(PULLER).is_some() {
        let without = std::env::var(WITHOUT).unwrap_or_default();
        let kept = RULES.iter().filter(|rule| rule.name != without);
        return Some(casemate_puller::run(std::env::args_os().skip(1), kept));
    }
    let name = std::env::var(CALL).ok()?;
    let call = CALLS.iter().find(|(other, _)| *other == name).expect("a call of the list").1;
    filter::install(RULES).expect("the filter is installed");
    call();
    Some(ExitCode::SUCCESS)
}

fn is_filtered(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGSYS as i32)
}

/// By TLS, with a body that comes in parts.
pub fn the_filter_has_every_rule_and_none_too_many() {
    let image = Image::new(2, 2_000_000);
    let authority = Authority::new();
    let blobs = image.blobs.clone();
    let server = Server::start(Some(&authority.issue(&["127.0.0.1"])), move |request| {
        let name = request.target.rsplit('/').next().unwrap_or_default();
        let blob = name.parse().ok().and_then(|digest| blobs.get(&digest));
        blob.map_or(Answer::new(200, "{}"), |blob| Answer::new(200, blob.clone()))
    });
    let configuration = section(".", &authority.certificate, "");
    let pinned = format!("{}/a/b@{}", server.host(), image.index);
    let bench = Bench::new();
    let pull = |without| bench.run(&bench.staging(), &pinned, Some(disk(&configuration)), &[(WITHOUT, without)]);
    let all = pull("nothing");
    assert_eq!(all.outcome().unwrap().len(), 2, "{}", String::from_utf8_lossy(&all.said));
    let mut failures = Vec::new();
    for rule in RULES {
        if let Some(why) = rule.untested {
            println!("    not tested: {}: {why}", rule.name);
            continue;
        }
        let ended = pull(rule.name);
        if !is_filtered(ended.status) {
            failures.push(format!(
                "without {}: {}: {}",
                rule.name,
                ended.status,
                String::from_utf8_lossy(&ended.said)
            ));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

pub fn what_a_taken_over_puller_would_try() {
    for (name, _) in CALLS {
        let myself = std::env::current_exe().unwrap();
        let status = Command::new(myself).env(CALL, name).status().unwrap();
        assert!(is_filtered(status), "{name}: {status}");
    }
}
