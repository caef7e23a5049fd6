# New limits of a container, for policies with casemate_version: the container must list each limit, and its bounds.
package framework

default update_container := {"allowed": false}

update_container := {"allowed": true} if {
	container_started
	some container in matching
	updated_within_limits(container)
}

errors_of("update_container") := update_container_errors | not_started_errors

update_container_errors contains "invalid limits" if {
	count([container | some container in matching; updated_within_limits(container)]) == 0
}
