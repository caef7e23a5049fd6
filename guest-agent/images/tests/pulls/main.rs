//! Pulls with the puller's process and the store's files: from Debian's registry, from hostile ones, under the filter and without each
//! of its rules.
//!
//! Without libtest, because the program executes itself as the puller under test.

mod bench;
mod filter;
mod names;
mod refusals;
mod registry;

use std::{panic::catch_unwind, process::ExitCode};

/// A test and its name.
type Test = (&'static str, fn());

const TESTS: [Test; 11] = [
    (
        "layers_are_those_of_the_host_and_pulled_once",
        registry::layers_are_those_of_the_host_and_pulled_once,
    ),
    (
        "a_login_and_an_authority_of_the_configuration",
        registry::a_login_and_an_authority_of_the_configuration,
    ),
    ("what_a_hostile_registry_sends", refusals::what_a_hostile_registry_sends),
    (
        "a_blob_that_is_no_layer_or_another_one",
        refusals::a_blob_that_is_no_layer_or_another_one,
    ),
    (
        "configurations_that_are_damaged_or_absent",
        refusals::configurations_that_are_damaged_or_absent,
    ),
    (
        "names_are_asked_of_the_servers_of_the_job",
        names::names_are_asked_of_the_servers_of_the_job,
    ),
    ("a_registry_that_is_not_there_yet", refusals::a_registry_that_is_not_there_yet),
    ("no_room", refusals::no_room),
    ("a_puller_without_an_agent_or_a_job", refusals::a_puller_without_an_agent_or_a_job),
    (
        "the_filter_has_every_rule_and_none_too_many",
        filter::the_filter_has_every_rule_and_none_too_many,
    ),
    ("what_a_taken_over_puller_would_try", filter::what_a_taken_over_puller_would_try),
];

fn main() -> ExitCode {
    if let Some(code) = filter::child() {
        return code;
    }
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, test) in TESTS {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        match catch_unwind(test) {
            Ok(()) => println!("test {name} ... ok"),
            Err(_) => {
                println!("test {name} ... FAILED");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
