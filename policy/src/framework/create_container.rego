# A container's init: everything about it must fit one container of the policy; what is allowed is what all that fit agree on.
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

# Narrowing in three steps: what stands in the policy as it is asked for, then environment, then capabilities.
create_by_process := [container |
	some container in matching
	create_process_fits(container)
	container.seccomp_profile_sha256 == input.seccompProfileSHA256
]

create_process_fits(container) if {
	container.command == input.argList
	container.working_dir == input.workingDir
	no_new_privileges_fits(container.no_new_privileges)
	privileged_fits(container)
	user_fits(container.user)
	mounts_fit(container)
}

create_env := kept_env(create_by_process)

create_by_env := [container |
	some container in create_by_process
	env_fits(container.env_rules, create_env)
]

create_capabilities := kept_capabilities(create_by_env, input.privileged)

create_by_capabilities := [container |
	some container in create_by_env
	capabilities_fit(allowed_capabilities(container, input.privileged), create_capabilities)
]

errors contains "container already started" if {
	input.rule == "create_container"
	container_started
}

errors contains "privileged escalation not allowed" if {
	input.rule == "create_container"
	not some_privileged_fits
}

some_privileged_fits if {
	some container in matching
	privileged_fits(container)
}

errors contains "invalid command" if {
	input.rule == "create_container"
	not some_command_fits
}

some_command_fits if {
	some container in matching
	container.command == input.argList
}

errors contains sprintf("invalid env list: %s", [concat(",", unknown)]) if {
	input.rule == "create_container"
	unknown := unknown_env(matching_or_none)
	count(unknown) > 0
}

default matching_or_none := []

matching_or_none := matching

errors contains "missing required environment variable" if {
	input.rule == "create_container"
	not container_started
	some container in create_by_process
	not env_complete(container.env_rules, input.envList)
}

errors contains "invalid env list" if {
	input.rule == "create_container"
	containers := matching
	every container in containers {
		create_process_fits(container)
		some entry in input.envList
		not env_known(container.env_rules, entry)
	}
}

errors contains "invalid working directory" if {
	input.rule == "create_container"
	not some_working_dir_fits
}

some_working_dir_fits if {
	some container in matching
	container.working_dir == input.workingDir
}

errors contains sprintf("invalid mount list: %s", [concat(",", unknown)]) if {
	input.rule == "create_container"
	unknown := [mount.destination |
		some mount in input.mounts
		not some_mount_allowed(mount)
	]
	count(unknown) > 0
}

some_mount_allowed(mount) if {
	count(matching) > 0
	default_mount(mount)
}

some_mount_allowed(mount) if {
	some container in matching
	mount_allowed(container, mount)
}

errors contains "invalid noNewPrivileges" if {
	input.rule == "create_container"
	not some_no_new_privileges_fits
}

some_no_new_privileges_fits if {
	some container in matching
	no_new_privileges_fits(container.no_new_privileges)
}

errors contains "invalid user" if {
	input.rule == "create_container"
	not some_user_fits
}

some_user_fits if {
	some container in matching
	user_fits(container.user)
}

errors contains "invalid seccomp" if {
	input.rule == "create_container"
	not some_seccomp_fits
}

some_seccomp_fits if {
	some container in matching
	container.seccomp_profile_sha256 == input.seccompProfileSHA256
}

errors contains "devices not supported" if {
	input.rule == "create_container"
	count(input.devices) > 0
}

errors contains "capabilities don't match" if {
	input.rule == "create_container"
	not container_started
	count(create_by_env) > 0
	not create_capabilities_fit
}

create_capabilities_fit if count(create_by_capabilities) > 0

errors contains "containers only distinguishable by capabilties" if {
	input.rule == "create_container"
	dropping_capabilities
	possible := [container |
		some container in matching
		create_process_fits(container)
	]
	env := kept_env(possible)
	count(largest_capabilities([container |
		some container in possible
		env_fits(container.env_rules, env)
	], input.privileged)) > 1
}

errors contains "containers only distinguishable by allow_stdio_access" if {
	input.rule == "create_container"
	count({container.allow_stdio_access | some container in create_by_capabilities}) > 1
}
