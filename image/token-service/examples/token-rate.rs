//! How many tokens a second the service gives over HTTP, with few rules and with many; all on one machine, the client included.
//!
//! `cargo run --release -p token-service --example token-rate`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry_store::document::{Document, difference};
use registry_store::{NewToken, Store};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use token_service::{Config, KeyAlgorithm, new_key, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Each waits for its answer, and each answer for the commit of its audit entry, so few cannot keep the processors busy.
const CONNECTIONS: usize = 256;
const USERS: usize = 256;
const MEASURED: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Failure> {
    let threads = std::thread::available_parallelism()?.get();
    println!("signatures alone, {threads} threads: {:.0}/s", signatures(threads)?);
    println!(
        "{:>9} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "projects", "rules", "tokens/s", "median", "p99", "memory"
    );
    for (projects, rules) in [(1, 0), (1, 10), (1, 100), (1, 1000), (1, 10_000), (1000, 10)] {
        measure(projects, rules).await?;
    }
    Ok(())
}

/// P-256 signatures a second, by the library that the service signs with.
fn signatures(threads: usize) -> Result<f64, Failure> {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let key = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "no key")?;
    let key = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).map_err(|_| "no key")?;
    let count = |_| {
        let (began, mut count) = (Instant::now(), 0_u64);
        while began.elapsed() < Duration::from_secs(2) {
            count += u64::from(key.sign(&random, &[0; 900]).is_ok());
        }
        count as f64 / began.elapsed().as_secs_f64()
    };
    Ok(std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || count(n))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
    }))
}

async fn measure(projects: usize, rules: usize) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    new_key(KeyAlgorithm::Es256, &path("key"), &path("crt"))?;
    let database = format!("sqlite:{}", path("db").display());
    let config = Config::parse(&format!(
        "listen = \"127.0.0.1:0\"\nissuer = \"rate\"\nservices = [\"r\"]\ndatabase = \"{database}\"\n[[keys]]\nkey = \"{}\"\ncertificate = \"{}\"\n",
        path("key").display(),
        path("crt").display()
    ))?;
    let requests = fill(&database, projects, rules).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ready, address) = tokio::sync::oneshot::channel();
    let service = tokio::spawn(serve(config, |address| _ = ready.send(address), async { _ = stopped.await }));
    let mut times = load(address.await?, requests).await?;
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
    println!(
        "{projects:>9} {:>9} {:>10.0} {:>10} {:>10} {:>10}",
        projects * rules,
        times.len() as f64 / MEASURED.as_secs_f64(),
        format!("{:?}", Duration::from_micros(at(0.5).into())),
        format!("{:?}", Duration::from_micros(at(0.99).into())),
        format!("{} MiB", memory()? >> 10),
    );
    drop(stop);
    service.await??;
    Ok(())
}

/// Users with a token each, who are developers of every project; gives the requests of each.
async fn fill(database: &str, projects: usize, rules: usize) -> Result<Arc<Vec<String>>, Failure> {
    let store = Store::open(database).await?;
    let mut document = "[[group]]\npath = \"g\"\nmembers = {".to_owned();
    let mut logins = Vec::new();
    for n in 0..USERS {
        let user = store.create_user("rate", &format!("user{n}"), None, false).await?;
        let token = NewToken::Personal {
            user,
            name: "t".to_owned(),
            read: true,
            write: true,
            api: false,
            expires: None,
        };
        let (_, secret) = store.create_token("rate", &token).await?;
        logins.push(STANDARD.encode(format!("user{n}:{}", secret.expose())));
        write!(document, "{} user{n} = \"developer\"", if n == 0 { "" } else { "," })?;
    }
    document += " }\n";
    for project in 0..projects {
        writeln!(
            document,
            "[[project]]\npath = \"g/p{project}\"\nvisibility = \"private\"\nrules = ["
        )?;
        for rule in 0..rules {
            // One in ten has a wildcard; none of them is in the way.
            let star = if rule % 10 == 0 { "*" } else { "" };
            writeln!(
                document,
                "{{ pattern = \"g/p{project}/kept{rule}{star}\", push = \"maintainer\" }},"
            )?;
        }
        document += "]\n";
    }
    let snapshot = store.current().await?;
    store.apply("rate", &difference(&snapshot, &Document::parse(&document)?)?).await?;
    store.close().await;
    let requests = logins.iter().enumerate().map(|(n, login)| {
        let scope = format!("repository:g/p{}/app{n}:pull,push", n % projects);
        format!("GET /jwt/auth?service=r&scope={scope} HTTP/1.1\r\nHost: r\r\nAuthorization: Basic {login}\r\n\r\n")
    });
    Ok(Arc::new(requests.collect()))
}

/// Microseconds of each answer, over connections that stay open.
async fn load(address: SocketAddr, requests: Arc<Vec<String>>) -> Result<Vec<u32>, Failure> {
    let ends = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        let (ends, requests) = (ends.clone(), requests.clone());
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut times, mut answer) = (Vec::new(), vec![0; 8192]);
            for request in requests.iter().cycle().skip(first) {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                stream.write_all(request.as_bytes()).await?;
                let length = stream.read(&mut answer).await?;
                if !answer.starts_with(b"HTTP/1.1 200") || answer.get(length.wrapping_sub(1)) != Some(&b'}') {
                    return Err(Failure::from(String::from_utf8_lossy(&answer[..length]).into_owned()));
                }
                times.push(u32::try_from(began.elapsed().as_micros())?);
            }
            Ok(times)
        });
    }
    tokio::time::sleep(MEASURED).await;
    ends.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    while let Some(times) = clients.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

/// Resident KiB of this process: the service, and the client with its times.
fn memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
