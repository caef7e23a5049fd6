package port_forward_test

import data.fixtures
import data.framework

allowed(port, started) if {
	framework.port_forward.allowed with input as {"containerID": fixtures.id, "port": port}
		with data.metadata.matches as {fixtures.id: [object.union(fixtures.container, {"forwarded_ports": [80]})]}
		with data.metadata.started as started
}

test_only_listed_ports_of_a_running_container if {
	allowed(80, {fixtures.id: {"privileged": false}})
	not allowed(81, {fixtures.id: {"privileged": false}})
	not allowed(80, {})
}
