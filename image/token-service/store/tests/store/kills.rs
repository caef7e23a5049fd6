//! A process that makes rules is killed at any moment: no rule that it was told of is lost, and the database opens.

use crate::{Database, fields};
use registry_rules::{RuleId, Visibility};
use registry_store::Store;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: u32 = 200;
/// Where the child finds its database.
const DATABASE: &str = "CASEMATE_TEST_DATABASE";
/// What the child prints before each rule that it was told of.
const RULE: &str = "acknowledged ";

#[tokio::test]
async fn no_acknowledged_rule_is_lost() {
    let database = Database::sqlite();
    let store = database.open().await;
    let path = "g/a".parse().unwrap();
    let project = store.create_project("test", &path, Visibility::Private).await.unwrap();
    store.close().await;
    let mut random = fastrand::Rng::with_seed(17);
    let mut acknowledged = HashSet::<RuleId>::new();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::child", "--ignored", "--nocapture"])
            .env(DATABASE, &database.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let rule = |line: String| line.strip_prefix(RULE).map(|id| id.parse::<RuleId>().unwrap());
        let before = acknowledged.len();
        let wanted = random.usize(..12);
        while acknowledged.len() < before + wanted {
            let line = lines.next().expect("the child goes on until it is killed").unwrap();
            acknowledged.extend(rule(line));
        }
        // Anywhere in the child's next few steps, its opening of the database among them. Nothing depends on how far it is.
        let moment = Instant::now() + Duration::from_micros(random.u64(..8000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(rule));

        let store = Store::open(&database.url).await.unwrap();
        let snapshot = store.current().await.unwrap();
        let there: HashSet<RuleId> = snapshot
            .projects
            .by_id(project)
            .unwrap()
            .rules()
            .iter()
            .map(|rule| rule.id)
            .collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "kill {kill}: {lost:?} are lost");
        store.close().await;
    }
    println!("{} rules were acknowledged in {KILLS} lives", acknowledged.len());
    assert!(acknowledged.len() > KILLS as usize);
}

#[test]
#[ignore = "the child of the test above"]
fn child() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&url).await.unwrap();
        let snapshot = store.current().await.unwrap();
        let project = snapshot.projects.by_path("g/a").unwrap();
        for n in project.rules().len() + 1.. {
            let fields = fields(&format!("g/a/{}/{n}", std::process::id()), "owner", "");
            let rule = store.create_rule("test", project.id, &fields).await.unwrap();
            let mut out = std::io::stdout().lock();
            write!(out, "\n{RULE}{}\n", rule.id).unwrap();
            out.flush().unwrap();
        }
    });
}
