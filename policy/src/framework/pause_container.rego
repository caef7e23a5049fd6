# Freezing a container, for policies with casemate_version: the container must have `allow_pause`.
package framework

default pause_container := {"allowed": false}

pause_container := {"allowed": true} if {
	container_started
	pause_listed
}

pause_listed if {
	some container in matching
	container.allow_pause == true
}

errors_of("pause_container") := pause_container_errors | not_started_errors

pause_container_errors contains "the container may not be paused" if not pause_listed
