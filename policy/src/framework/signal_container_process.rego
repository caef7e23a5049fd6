# A signal: to a container's init, the container lists it; to an exec process, the entry of its command does.
package framework

default signal_container_process := {"allowed": false}

signal_container_process := {
	"allowed": true,
	"metadata": [{"name": "matches", "action": "update", "key": input.containerID, "value": bounded(signal_matches)}],
} if {
	container_started
	count(signal_matches) > 0
}

signal_matches := [container |
	some container in matching
	input.signal in container.signals
] if {
	input.isInitProcess
}

signal_matches := [container |
	some container in matching
	some process in container.exec_processes
	process.command == input.argList
	input.signal in process.signals
] if {
	not input.isInitProcess
}

errors_of("signal_container_process") := signal_container_process_errors | not_started_errors

signal_container_process_errors contains "target isn't allowed to receive the signal" if count(signal_matches) == 0
