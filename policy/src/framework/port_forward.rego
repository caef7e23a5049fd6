# A connection from the host to a port, for policies with casemate_version: the container's list `forwarded_ports` must have it.
package framework

default port_forward := {"allowed": false}

port_forward := {"allowed": true} if {
	container_started
	port_listed
}

port_listed if {
	some container in matching
	input.port in object.get(container, "forwarded_ports", [])
}

errors_of("port_forward") := port_forward_errors | not_started_errors

port_forward_errors contains sprintf("port %v may not be forwarded", [input.port]) if not port_listed
