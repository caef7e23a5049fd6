# A container's init: it must match a container of the policy in every field. Fields of the answer are those that all matches agree on.
package framework

default create_container := {"allowed": false}

create_container := {
	"allowed": true,
	"env_list": create_env,
	"caps_list": create_capabilities,
	"allow_stdio_access": stdio,
	"metadata": [
		{"name": "matches", "action": "update", "key": input.containerID, "value": create_by_capabilities},
		{"name": "started", "action": "add", "key": input.containerID, "value": {"privileged": input.privileged}},
	],
} if {
	not container_started
	count(input.devices) == 0
	count(create_by_capabilities) > 0
	stdio := create_by_capabilities[0].allow_stdio_access
	every container in create_by_capabilities {
		container.allow_stdio_access == stdio
	}
}

# Candidates are narrowed in three steps: by fixed fields, by environment, by capabilities.
create_by_process := casemate_where(create_process_fitting, "seccomp_profile_sha256", input.seccompProfileSHA256)

create_process_fitting := casemate_mounts_fitting(
	[container |
		some container in users_fitting(by_command_and_directory)
		no_new_privileges_fits(container.no_new_privileges)
		privileged_fits(container)
	],
	special_mounts, mount_places,
)

by_command_and_directory := casemate_where(casemate_where(matching_or_none, "command", input.argList), "working_dir", input.workingDir)

create_env := kept_env(create_by_process)

create_by_env := env_fitting(create_by_process, create_env)

create_capabilities := kept_capabilities(create_by_env, input.privileged)

create_by_capabilities := [container |
	some container in create_by_env
	capabilities_fit(allowed_capabilities(container, input.privileged), create_capabilities)
]

errors_of("create_container") := create_container_errors

create_container_errors contains "container already started" if container_started

create_container_errors contains "privileged escalation not allowed" if not some_privileged_fits

some_privileged_fits if {
	some container in matching
	privileged_fits(container)
}

create_container_errors contains "invalid command" if not count(casemate_where(matching, "command", input.argList)) > 0

create_container_errors contains sprintf("invalid env list: %s", [concat(",", unknown)]) if {
	unknown := unknown_env(matching_or_none)
	count(unknown) > 0
}

default matching_or_none := []

matching_or_none := matching

create_container_errors contains "missing required environment variable" if {
	not container_started
	env_incomplete(create_by_process)
}

create_container_errors contains "invalid env list" if {
	containers := matching
	count(create_process_fitting) == count(containers)
	every container in containers {
		count(unknown_env([container])) > 0
	}
}

create_container_errors contains "invalid working directory" if not some_working_dir_fits

some_working_dir_fits if count(casemate_where(matching, "working_dir", input.workingDir)) > 0

create_container_errors contains sprintf("invalid mount list: %s", [concat(",", unknown)]) if {
	unknown := [mount.destination | some mount in refused_mounts]
	count(unknown) > 0
}

refused_mounts := input.mounts if count(matching_or_none) == 0

refused_mounts := casemate_mounts_refused(matching, special_mounts, mount_places) if count(matching_or_none) > 0

create_container_errors contains "invalid noNewPrivileges" if not some_no_new_privileges_fits

some_no_new_privileges_fits if {
	some container in matching
	no_new_privileges_fits(container.no_new_privileges)
}

create_container_errors contains "invalid user" if not count(users_fitting(matching)) > 0

create_container_errors contains "invalid seccomp" if {
	not count(casemate_where(matching, "seccomp_profile_sha256", input.seccompProfileSHA256)) > 0
}

create_container_errors contains "devices not supported" if count(input.devices) > 0

# Where dropping leaves different capabilities, only that is the reason.
create_container_errors contains "capabilities don't match" if {
	not container_started
	count(create_by_env) > 0
	create_capabilities
	not create_capabilities_fit
}

create_capabilities_fit if count(create_by_capabilities) > 0

create_container_errors contains "containers only distinguishable by capabilties" if {
	dropping_capabilities
	env := kept_env(create_process_fitting)
	count(largest_capabilities(env_fitting(create_process_fitting, env), input.privileged)) > 1
}

create_container_errors contains "containers only distinguishable by allow_stdio_access" if {
	count({container.allow_stdio_access | some container in create_by_capabilities}) > 1
}
