# The containers of a policy and its fragments, upgraded to the current framework version.
package framework

default policy_containers := []

policy_containers := data.policy.containers if policy_age == 0

policy_containers := [upgraded_container(container, policy_version) | some container in data.policy.containers] if policy_age < 0

loaded_fragments := [loaded |
	some issuer, feed
	some loaded in data.metadata.issuers[issuer].feeds[feed]
]

declared_containers := array.concat(policy_containers, [container |
	some loaded in loaded_fragments
	some container in loaded.containers
])

# Each platform rule gives an extended copy of every container.
default policy_platform_rules := []

policy_platform_rules := data.policy.platform_rules if policy_age == 0

platform_rules := array.concat(policy_platform_rules, [rule |
	some loaded in loaded_fragments
	some rule in loaded.platform_rules
])

candidate_containers := declared_containers if count(platform_rules) == 0

candidate_containers := [extended |
	some container in declared_containers
	some rule in platform_rules
	extended := object.union(container, {
		"env_rules": array.concat(container.env_rules, object.get(rule, "env_rules", [])),
		"mounts": array.concat(container.mounts, object.get(rule, "mounts", [])),
	})
] if {
	count(platform_rules) > 0
}

# An object without a field of its declared version is undefined and dropped.
upgraded_container(container, declared) := {
	"command": container.command,
	"env_rules": container.env_rules,
	"layers": container.layers,
	"mounts": container.mounts,
	"allow_elevated": container.allow_elevated,
	"working_dir": container.working_dir,
	"exec_processes": container.exec_processes,
	"allow_stdio_access": container.allow_stdio_access,
	"signals": upgraded_signals(container, declared),
	"no_new_privileges": field_since(container, "no_new_privileges", declared, "0.2.0", false),
	"user": field_since(container, "user", declared, "0.2.1", any_user),
	"capabilities": field_since(container, "capabilities", declared, "0.2.2", null),
	"seccomp_profile_sha256": field_since(container, "seccomp_profile_sha256", declared, "0.2.3", ""),
}

any_user := {
	"umask": "0022",
	"user_idname": {"pattern": "", "strategy": "any"},
	"group_idnames": [{"pattern": "", "strategy": "any"}],
}

field_since(object, name, declared, introduced, _) := object[name] if {
	semver.compare(declared, introduced) >= 0
}

field_since(_, _, declared, introduced, older) := older if {
	semver.compare(declared, introduced) < 0
}

# Before 0.4.1, signals 9 and 15 were allowed implicitly.
upgraded_signals(container, declared) := container.signals if {
	semver.compare(declared, "0.4.1") >= 0
}

upgraded_signals(container, declared) := array.concat(container.signals, [9, 15]) if {
	semver.compare(declared, "0.4.1") < 0
}

# The candidates: containers of the policy that all earlier decisions about this container id fit.
matching := data.metadata.matches[input.containerID]

# Duplicate candidates double with every exec; above this number duplicates are removed.
most_matches := 4096

bounded(containers) := containers if count(containers) <= most_matches

bounded(containers) := [container | some container in {each | some each in containers}] if {
	count(containers) > most_matches
}

container_started if data.metadata.started[input.containerID]

not_started_errors contains "container not started" if not container_started
