//! How fast the store is with 10 000 rules in 1 000 projects, 10 000 users and as many tokens, on SQLite in a given directory
//! or on the PostgreSQL database of a given URL: `store-rates DIRECTORY|URL`.

use registry_rules::Visibility;
use registry_store::document::{Document, difference};
use registry_store::{AuditEntry, AuditOutcome, NewToken, RuleFields, Store};
use sqlx::Connection;
use std::time::{Duration, Instant};

const CALLERS: u32 = 64;
const SPAN: Duration = Duration::from_secs(3);

/// Users and tokens in the fastest way, which both databases understand.
const FILL: &str = "
    INSERT INTO users (name, password, administrator, blocked, changed)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
        SELECT 'user' || i, '$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$R1pEbGYyUmFUeFlhdGhlaGFzaG9mdGhpc3VzZXI', 0, 0, 1 FROM n;
    INSERT INTO tokens (digest, kind, user_id, name, reads, writes, api, created, changed)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
        SELECT substr('0000000000000000000000000000000000000000000000000000000000000000' || i, length('' || i) + 1),
            'personal', (SELECT MIN(id) FROM users), 'laptop', 1, 1, 0, 0, 1 FROM n;
    UPDATE state SET version = version + 1;
    UPDATE state SET users = version, tokens = version;";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::args().nth(1).ok_or("usage: store-rates DIRECTORY|URL")?;
    let url = if place.contains("://") {
        place.clone()
    } else {
        format!("sqlite:{place}/rates.db")
    };
    let store = Store::open(&url).await?;
    if std::env::args().nth(2).is_some() {
        println!("memory of a process that opens it: {} KiB", resident());
        return Ok(());
    }
    let empty = resident();
    let mut connection = sqlx::AnyConnection::connect(&url).await?;
    sqlx::raw_sql(FILL).execute(&mut connection).await?;
    let mut text = String::new();
    for project in 0..1000 {
        text += &format!("[[project]]\npath = \"g/p{project}\"\nvisibility = \"private\"\nrules = [");
        for rule in 0..10 {
            let star = if rule % 2 == 0 { "*" } else { "" };
            text += &format!("{{ pattern = \"g/p{project}/image{rule}{star}\", push = \"owner\" }}, ");
        }
        text += "]\n";
    }
    let start = Instant::now();
    let changes = difference(&*store.current().await?, &Document::parse(&text)?)?;
    store.apply("test", &changes).await?;
    println!("{} changes applied in {:.0?}", changes.len(), start.elapsed());
    let start = Instant::now();
    let snapshot = store.current().await?;
    println!("first load of the rules: {:.1?}", start.elapsed());
    let project = snapshot.projects.by_path("g/p0").ok_or("a project is missing")?.id;
    drop(snapshot);
    for what in ["rule", "user", "token", "group"] {
        let mut times = Vec::new();
        for n in 0..5 {
            let name = format!("more{n}");
            if what == "token" {
                let user = store.current().await?.user("user2").ok_or("a user is missing")?.id;
                let (read, write, api, expires) = (true, false, false, None);
                let new = NewToken::Personal {
                    user,
                    name,
                    read,
                    write,
                    api,
                    expires,
                };
                store.create_token("test", &new).await?;
            } else if what == "user" {
                store.create_user("test", &name, None, false).await?;
            } else if what == "group" {
                store.create_group("test", &name.parse()?).await?;
            } else {
                let fields = RuleFields {
                    pattern: format!("g/p0/more{n}"),
                    push: Some("owner".to_owned()),
                    delete: None,
                };
                store.create_rule("test", project, &fields).await?;
            }
            let start = Instant::now();
            store.current().await?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!("reload after an edit of a {what}: {:.1?}", times[2]);
    }
    let pid = store.create_project("test", &"g/last".parse()?, Visibility::Public).await?;
    println!("memory: {} KiB, with an empty database {empty} KiB", resident());
    let reads = rate(&store, async |store, _| store.current().await.map(drop)).await;
    println!("current(): {reads:.0} calls a second of {CALLERS} callers");
    let writes = rate(&store, async move |store, n| store.record(entry(n, pid)).await).await;
    println!("record(): {writes:.0} calls a second of {CALLERS} callers");
    println!("memory: {} KiB", resident());
    store.close().await;
    std::process::Command::new(std::env::current_exe()?)
        .args([&place, "open"])
        .status()?;
    Ok(())
}

async fn rate<F>(store: &Store, call: F) -> f64
where
    F: AsyncFn(Store, u32) -> Result<(), registry_store::StoreError> + Clone + 'static,
{
    let local = tokio::task::LocalSet::new();
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (store, call) = (store.clone(), call.clone());
        let calls = async move {
            let mut calls = 0_u32;
            while start.elapsed() < SPAN {
                if call(store.clone(), caller).await.is_ok() {
                    calls += 1;
                }
            }
            calls
        };
        callers.spawn_local_on(calls, &local);
    }
    let calls: u32 = local.run_until(callers.join_all()).await.into_iter().sum();
    f64::from(calls) / start.elapsed().as_secs_f64()
}

fn entry(caller: u32, project: i64) -> AuditEntry {
    AuditEntry {
        at: 1_700_000_000_000,
        actor: format!("user{caller}"),
        address: "192.0.2.1".to_owned(),
        action: "token".to_owned(),
        subject: "g/last/image".to_owned(),
        outcome: AuditOutcome::Granted,
        detail: "repository:g/last/image:pull,push".to_owned(),
        project: Some(project),
        rule: None,
    }
}

/// Memory of this process that is in RAM, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
