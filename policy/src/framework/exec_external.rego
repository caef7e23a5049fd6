# A process in the guest, outside containers.
package framework

default exec_external := {"allowed": false}

exec_external := {
	"allowed": true,
	"env_list": external_env,
	"allow_stdio_access": stdio,
} if {
	count(external_by_env) > 0
	stdio := external_by_env[0].allow_stdio_access
	every process in external_by_env {
		process.allow_stdio_access == stdio
	}
}

default candidate_processes := []

candidate_processes := array.concat(policy_processes, [process |
	some loaded in loaded_fragments
	some process in loaded.external_processes
])

policy_processes := data.policy.external_processes if policy_age == 0

policy_processes := [] if {
	policy_age == 0
	not data.policy.external_processes
}

policy_processes := [upgraded_process(process) | some process in data.policy.external_processes] if {
	policy_age < 0
	data.policy.external_processes
}

upgraded_process(process) := {
	"command": process.command,
	"env_rules": process.env_rules,
	"working_dir": process.working_dir,
	"allow_stdio_access": process.allow_stdio_access,
}

external_by_process := casemate_where(casemate_where(candidate_processes, "command", input.argList), "working_dir", input.workingDir)

external_env := kept_env(external_by_process)

external_by_env := env_fitting(external_by_process, external_env)

errors_of("exec_external") := exec_external_errors

exec_external_errors contains "invalid command" if not some_external_command_fits

some_external_command_fits if {
	some process in candidate_processes
	process.command == input.argList
}

exec_external_errors contains sprintf("invalid env list: %s", [concat(",", unknown)]) if {
	unknown := unknown_env(candidate_processes)
	count(unknown) > 0
}

exec_external_errors contains "missing required environment variable" if env_incomplete(external_by_process)

exec_external_errors contains "invalid working directory" if not some_external_working_dir_fits

some_external_working_dir_fits if {
	some process in candidate_processes
	process.working_dir == input.workingDir
}

exec_external_errors contains "external processes only distinguishable by allow_stdio_access" if {
	count({process.allow_stdio_access | some process in external_by_env}) > 1
}
