//! `casemate attest fetch` against a key server on the loopback, with what tests of the verifier made: a Turin under a root of tests.

mod program;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vmm/attestation/verifier/fixtures/test");
const CHAIN: &str = "/vcek/v1/Turin/cert_chain";
const ENDORSEMENT: &str = "/vcek/v1/Turin/c1c1c1c1c1c1c1c1?fmcSPL=126&blSPL=127&teeSPL=128&snpSPL=129&ucodeSPL=133";
const LIST: &str = "/vcek/v1/Turin/crl";
const FILES: [&str; 3] = [
    "turin-vcek-c1c1c1c1c1c1c1c1-7e7f808100000085.der",
    "turin-vcek-chain.pem",
    "turin-vcek.crl",
];

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(FIXTURES).join(name)).unwrap()
}

/// Status line with headers, and body.
type Answer = (&'static str, Vec<u8>);

/// A key server: answers by path, and every path that was asked for.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<BTreeMap<&'static str, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it; it ends with the test. Returns its URL.
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = self.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                // A client that has gone is no failure of the server.
                let _ = connection.and_then(|connection| server.serve(connection));
            }
        });
        url
    }

    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let answers = self.answers.lock().unwrap();
        let (status, body) = answers.get(path.as_str()).cloned().unwrap_or(("404 Not Found", Vec::new()));
        self.asked.lock().unwrap().push(path);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        connection.write_all(&[head.into_bytes(), body].concat())
    }

    fn set(&self, path: &'static str, status: &'static str, body: Vec<u8>) {
        self.answers.lock().unwrap().insert(path, (status, body));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A server that has everything.
fn complete() -> Server {
    let server = Server::default();
    server.set(CHAIN, "200 OK", fixture("chain.pem"));
    server.set(ENDORSEMENT, "200 OK", fixture("endorsement.der"));
    server.set(LIST, "200 OK", fixture("list.crl"));
    server
}

fn fetch(directory: &Path, url: &str, arguments: &[&str]) -> Output {
    let fixed = ["fetch", "--report", "-", "--server", url, "--certs", "certs"];
    program::run("attest", directory, &[&fixed[..], arguments].concat(), &fixture("report.bin"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("certs")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const REQUIREMENTS: &str = r#"
products = ["turin"]
measurements = ["any"]
host_data = ["any"]
report_data = ["any"]
[minimum_tcb.turin]
fmc = 126
boot_loader = 127
tee = 128
snp = 129
microcode = 133
"#;

#[test]
fn what_was_fetched_verifies_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let server = complete();
    let url = server.start();
    // A path of the URL is kept.
    let output = fetch(directory.path(), &format!("{url}/"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(server.asked(), [CHAIN, ENDORSEMENT, LIST]);
    assert_eq!(files(directory.path()), FILES);
    assert_eq!(text(&output.stdout).matches("fetched  certs/turin-vcek").count(), 3);

    fs::write(directory.path().join("verifier.toml"), REQUIREMENTS).unwrap();
    fs::write(directory.path().join("root.pem"), fixture("root.pem")).unwrap();
    let verified = |arguments: &[&str]| {
        let fixed = ["verify", "-", "--certs", "certs", "--requirements", "verifier.toml"];
        let output = program::run(
            "attest",
            directory.path(),
            &[&fixed[..], arguments].concat(),
            &fixture("report.bin"),
        );
        text(&output.stdout).lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(verified(&["--roots", "root.pem", "--at", "1700000000"]), "verified");
    assert_eq!(verified(&["--at", "1700000000"]), "refused: root key");
    assert_eq!(
        verified(&["--roots", "root.pem", "--at", "1700000101"]),
        "refused: revocation list age"
    );
}

/// The server answers one question in ten seconds: what is there and fits is not asked for again, but for the list.
#[test]
fn what_is_there_is_not_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = complete();
    let url = server.start();
    assert_eq!(fetch(directory.path(), &url, &[]).status.code(), Some(0));
    server.asked();
    assert_eq!(fetch(directory.path(), &url, &[]).status.code(), Some(0));
    assert_eq!(server.asked(), [LIST]);

    // A file that is not what its name says is replaced.
    fs::write(directory.path().join("certs").join(FILES[0]), fixture("root.pem")).unwrap();
    assert_eq!(fetch(directory.path(), &url, &[]).status.code(), Some(0));
    assert_eq!(server.asked(), [ENDORSEMENT, LIST]);
    assert_eq!(
        fs::read(directory.path().join("certs").join(FILES[0])).unwrap(),
        fixture("endorsement.der")
    );

    // Without the server the list that is there stays, and the failure is said.
    server.set(LIST, "503 Service Unavailable", Vec::new());
    let output = fetch(directory.path(), &url, &[]);
    assert_eq!(output.status.code(), Some(3));
    let error = text(&output.stderr);
    let wanted = "cannot fetch turin-vcek.crl (the one that is there is kept) from ";
    assert!(
        error.contains(wanted) && error.contains("the server answers 503 Service Unavailable"),
        "{error}"
    );
    assert_eq!(
        fs::read(directory.path().join("certs").join(FILES[2])).unwrap(),
        fixture("list.crl")
    );
}

#[test]
fn answers_that_are_of_no_use_are_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let server = complete();
    let url = server.start();
    let refused = |path, status, body: Vec<u8>| {
        server.set(path, status, body);
        let output = fetch(directory.path(), &url, &[]);
        assert_eq!(output.status.code(), Some(3));
        text(&output.stderr)
    };
    for (status, body, problem) in [
        (
            "429 Too Many Requests\r\nRetry-After: 7",
            Vec::new(),
            "run the command again after 7 s",
        ),
        ("429 Too Many Requests", Vec::new(), "run the command again after a while"),
        (
            "302 Found\r\nLocation: /vcek/v1/Turin/crl",
            fixture("chain.pem"),
            "the server answers 302 Found",
        ),
        ("200 OK", b"<html>".to_vec(), "neither a certificate nor a revocation list"),
        ("200 OK", fixture("endorsement.der"), "the answer is not ARK-Turin and SEV-Turin"),
        ("200 OK", vec![0; (1 << 20) + 1], "limit"),
    ] {
        let error = refused(CHAIN, status, body);
        assert!(error.contains(problem), "{status}: {error}");
        assert_eq!(files(directory.path()), Vec::<String>::new());
    }
    server.set(CHAIN, "200 OK", fixture("chain.pem"));
    let error = refused(ENDORSEMENT, "200 OK", fixture("list.crl"));
    assert!(error.contains("not the certificate of the key that signed the report"), "{error}");
    // What was fetched before it is kept.
    assert_eq!(files(directory.path()), ["turin-vcek-chain.pem"]);

    let error = text(&fetch(directory.path(), "http://127.0.0.1:1", &["--product", "genoa"]).stderr);
    assert!(error.contains("the report is of a Turin, not of a Genoa"), "{error}");
    let error = text(&fetch(&directory.path().join("certs"), "http://127.0.0.1:1", &[]).stderr);
    assert!(
        error.contains("cannot fetch turin-vcek-chain.pem from http://127.0.0.1:1/vcek/v1/Turin/cert_chain"),
        "{error}"
    );
}
