package signal_container_process_test

import data.fixtures
import data.framework

to_init := {"containerID": fixtures.id, "signal": 9, "isInitProcess": true, "argList": fixtures.container.command}

to_exec := {"containerID": fixtures.id, "signal": 15, "isInitProcess": false, "argList": ["ctl", "ping"]}

answer(request, change) := found if {
	found := framework.signal_container_process with input as object.union(request, change)
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
		with data.metadata.started as {fixtures.id: true}
}

test_the_container_lists_signals_of_its_init if {
	answer(to_init, {}).allowed
	not answer(to_init, {"signal": 15}).allowed
}

test_an_exec_process_has_its_own_signals if {
	answer(to_exec, {}).allowed
	not answer(to_exec, {"signal": 9}).allowed
	not answer(to_exec, {"argList": ["ctl"]}).allowed
	not answer(to_exec, {"argList": null}).allowed
}

test_containers_that_forbid_the_signal_are_ruled_out if {
	silent := object.union(fixtures.container, {"signals": []})
	answer := framework.signal_container_process with input as to_init
		with data.metadata.matches as {fixtures.id: [silent, fixtures.container]}
		with data.metadata.started as {fixtures.id: true}
	answer.metadata[0].value == [fixtures.container]
}

test_the_denial_names_the_cause if {
	errors := framework.errors with input as object.union(to_init, {"rule": "signal_container_process", "signal": 1})
		with data.policy.framework_version as "0.5.0"
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
	errors == {"target isn't allowed to receive the signal", "container not started"}
}
