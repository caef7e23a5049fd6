//! The table of items and stories after `make test`: which story shows what, and whether it passed on each Debian that ran.

use crate::{
    runner::summary::{Counts, Summary},
    stories::items::{ITEMS, Item},
};

/// The printed table, the numbers, and a remark for each item that does not hold.
pub fn judge(summaries: &[Summary]) -> (String, Counts, Vec<String>) {
    let names: Vec<&str> = summaries.iter().map(Summary::machine).collect();
    let mut table = format!("{:52} {:32} {}\n", "item", "story", names.join(" "));
    let mut counts = Counts::default();
    let mut remarks = Vec::new();
    for item in ITEMS {
        let mut holds = true;
        for (n, story) in item.stories.iter().enumerate() {
            let results: Vec<&str> = summaries.iter().map(|summary| word(summary, story)).collect();
            holds &= results.iter().all(|result| *result == PASSED);
            let name = if n == 0 { item.name } else { "" };
            let columns: Vec<String> = results
                .iter()
                .zip(&names)
                .map(|(result, name)| format!("{result:width$}", width = name.len()))
                .collect();
            table.push_str(format!("{name:52} {story:32} {}", columns.join(" ")).trim_end());
            table.push('\n');
        }
        if holds {
            counts.passed += 1;
        } else {
            counts.failed += 1;
            remarks.push(remark(item));
        }
    }
    (table, counts, remarks)
}

const PASSED: &str = "yes";

fn word(summary: &Summary, story: &str) -> &'static str {
    match summary.passed(story) {
        Some(true) => PASSED,
        Some(false) => "no",
        None => "not run",
    }
}

fn remark(item: &Item) -> String {
    format!("failed: {}: by {}", item.name, item.stories.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::{Runtime, Scope, Set},
        runner::{Done, Task},
        stories::{
            self,
            report::{Outcome, Report},
        },
    };
    use std::time::{Duration, Instant};

    fn summary(but: &str) -> Summary {
        let done = |name: &&str| Done {
            task: Task {
                story: stories::find(name).unwrap(),
                runtime: Runtime::Casemate,
                scope: Scope {
                    set: Set::Short,
                    part: 1,
                    parts: 1,
                    seed: 1,
                },
            },
            report: Report {
                outcome: if *name == but { Outcome::Failed } else { Outcome::Passed },
                message: String::new(),
                seconds: 1.0,
            },
            took: Duration::ZERO,
            faults: Vec::new(),
        };
        let stories = ITEMS.iter().flat_map(|item| item.stories);
        Summary::of("forky", Instant::now(), stories.map(done).collect())
    }

    #[test]
    fn an_item_holds_where_each_of_its_stories_passed_everywhere() {
        let all = summary("");
        let (_, counts, remarks) = judge(&[all, summary("")]);
        assert_eq!((counts.passed, counts.failed, remarks.len()), (ITEMS.len(), 0, 0));
        let (table, counts, remarks) = judge(&[summary(""), summary("pod-exec")]);
        assert_eq!((counts.failed, remarks.len()), (1, 1));
        assert!(remarks[0].contains("exec") && table.contains("pod-exec"), "{table}");
        let nothing = Summary::of("trixie", Instant::now(), Vec::new());
        let (table, counts, _) = judge(&[nothing]);
        assert!(counts.passed == 0 && table.contains("not run"), "{table}");
    }
}
