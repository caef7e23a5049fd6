# Shuts a container down. Its id cannot be used again.
package framework

default shutdown_container := {"allowed": false}

shutdown_container := {
	"allowed": true,
	"metadata": [{"name": "matches", "action": "remove", "key": input.containerID}],
} if {
	container_started
}

errors_of("shutdown_container") := not_started_errors
