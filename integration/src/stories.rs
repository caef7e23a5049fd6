//! The stories: each does what a user does and checks what a user sees, inside L1, through containerd's own `ctr`.

pub mod agent;
pub mod attested;
pub mod boot;
pub mod cni;
pub mod confinement;
pub mod console;
pub mod damage;
pub mod denial;
pub mod enforcement_points;
pub mod escape;
pub mod faults;
pub mod fragment;
pub mod growth;
pub mod hostile_host;
pub mod items;
pub mod layers;
pub mod lifecycle;
pub mod no_vsock;
pub mod output;
pub mod pods;
pub mod pods_pull;
pub mod private_registry;
pub mod report;
pub mod run_command;
pub mod sandbox_api;
pub mod scratch;
pub mod scratch_memory;
pub mod security_context;
pub mod story;
pub mod streams;
pub mod task;
pub mod vcpus;

/// Every story, by the file that defines it.
const FILES: &[&[story::Story]] = &[
    lifecycle::STORIES,
    output::STORIES,
    denial::STORIES,
    damage::STORIES,
    &[confinement::STORY],
    agent::STORIES,
    enforcement_points::STORIES,
    &[fragment::STORY],
    &[cni::STORY],
    &[security_context::STORY],
    &[attested::STORY],
    scratch::STORIES,
    &[scratch_memory::STORY],
    &[console::STORY],
    run_command::STORIES,
    &[private_registry::STORY],
    layers::STORIES,
    &[task::codes::STORY],
    &[task::same_id::STORY],
    task::STORIES,
    streams::STORIES,
    faults::kill::STORIES,
    &[faults::containerd::STORY],
    faults::launcher::STORIES,
    faults::full::STORIES,
    &[faults::clock::STORY],
    faults::readers::STORIES,
    growth::STORIES,
    escape::STORIES,
    &[no_vsock::STORY],
    &[vcpus::STORY],
    &[boot::STORY],
    hostile_host::STORIES,
    pods::STORIES,
    sandbox_api::STORIES,
    pods::streams::STORIES,
    pods::health::STORIES,
    pods::confinement::STORIES,
    &[pods_pull::STORY],
];

/// Every story, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static story::Story> {
    FILES.iter().copied().flatten()
}

/// The story of that name.
pub fn find(name: &str) -> Option<&'static story::Story> {
    all().find(|story| story.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_easy_to_type() {
        let mut names: Vec<_> = all().map(|story| story.name).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
