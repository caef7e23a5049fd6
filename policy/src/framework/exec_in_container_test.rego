package exec_in_container_test

import data.fixtures
import data.framework

allowed(change) if {
	framework.exec_in_container.allowed with input as object.union(fixtures.exec, change)
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
		with data.metadata.started as {fixtures.id: {"privileged": false}}
}

test_a_listed_command_as_the_container_runs if {
	allowed({})
	not allowed({"argList": ["ctl"]})
	not allowed({"argList": ["app", "--serve"]})
	not allowed({"workingDir": "/tmp"})
	not allowed({"user": {"id": "0", "name": "root"}})
	not allowed({"noNewPrivileges": false})
	not allowed({"envList": []})
	not allowed({"capabilities": object.union(fixtures.unprivileged, {"ambient": ["CAP_CHOWN"]})})
}

test_the_container_must_have_started if {
	not framework.exec_in_container.allowed with input as fixtures.exec
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
}

signal(change) if {
	request := {"containerID": fixtures.id, "signal": 15, "isInitProcess": false, "argList": ["ctl", "ping"]}
	framework.signal_container_process.allowed with input as object.union(request, change)
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
		with data.metadata.started as {fixtures.id: {"privileged": false}}
}

test_signals_of_init_and_of_others if {
	signal({})
	not signal({"signal": 9})
	not signal({"argList": null})
	signal({"signal": 9, "isInitProcess": true})
	not signal({"isInitProcess": true})
}

test_shutdown_needs_a_start if {
	framework.shutdown_container.allowed with input as {"containerID": fixtures.id}
		with data.metadata.started as {fixtures.id: {"privileged": false}}
	not framework.shutdown_container.allowed with input as {"containerID": fixtures.id}
}
