# An exec process: its command is in the list exec_processes, its other fields match the container.
package framework

default exec_in_container := {"allowed": false}

exec_in_container := {
	"allowed": true,
	"env_list": exec_env,
	"caps_list": exec_capabilities,
	"metadata": [{"name": "matches", "action": "update", "key": input.containerID, "value": bounded(exec_by_capabilities)}],
} if {
	container_started
	count(exec_by_capabilities) > 0
}

exec_by_process := [container |
	some container in matching
	container.working_dir == input.workingDir
	no_new_privileges_fits(container.no_new_privileges)
	user_fits(container.user)

	# A command that is listed twice counts its container twice, as in hcsshim.
	some process in container.exec_processes
	process.command == input.argList
]

exec_command_listed(container) if {
	some process in container.exec_processes
	process.command == input.argList
}

exec_env := kept_env(exec_by_process)

exec_by_env := env_fitting(exec_by_process, exec_env)

default started_privileged := false

started_privileged := data.metadata.started[input.containerID].privileged

exec_capabilities := kept_capabilities(exec_by_env, started_privileged)

exec_by_capabilities := [container |
	some container in exec_by_env
	capabilities_fit(allowed_capabilities(container, started_privileged), exec_capabilities)
]

errors_of("exec_in_container") := exec_in_container_errors | not_started_errors

exec_in_container_errors contains "invalid command" if not some_exec_command_listed

some_exec_command_listed if {
	some container in matching
	exec_command_listed(container)
}

exec_in_container_errors contains sprintf("invalid env list: %s", [concat(",", unknown)]) if {
	unknown := unknown_env(matching_or_none)
	count(unknown) > 0
}

exec_in_container_errors contains "missing required environment variable" if {
	container_started
	env_incomplete(exec_by_process)
}

exec_in_container_errors contains "invalid working directory" if not some_working_dir_fits

# The next two errors look at the entry of exec_processes, which has no such fields: hcsshim reports them for every denied
# exec.
exec_in_container_errors contains "invalid noNewPrivileges" if not some_exec_no_new_privileges_fits

some_exec_no_new_privileges_fits if {
	some container in matching
	some process in container.exec_processes
	no_new_privileges_fits(process.no_new_privileges)
}

exec_in_container_errors contains "invalid user" if not some_exec_user_fits

some_exec_user_fits if {
	some container in matching
	some process in container.exec_processes
	user_fits(process.user)
}

exec_in_container_errors contains "capabilities don't match" if {
	container_started
	count(exec_by_env) > 0
	exec_capabilities
	not exec_capabilities_fit
}

exec_capabilities_fit if count(exec_by_capabilities) > 0
