package update_container_test

import data.fixtures
import data.framework

allowed(limits, started) if {
	framework.update_container.allowed with input as {"containerID": fixtures.id, "limits": limits}
		with data.metadata.matches as {fixtures.id: [object.union(fixtures.container, {"limits": {"memory.max": {"min": 4096}}})]}
		with data.metadata.started as started
}

test_only_listed_limits_of_a_running_container if {
	allowed({"memory.max": 4096}, {fixtures.id: {"privileged": false}})
	not allowed({"memory.max": 4095}, {fixtures.id: {"privileged": false}})
	not allowed({"pids.max": 1}, {fixtures.id: {"privileged": false}})
	not allowed({"memory.max": 4096}, {})
}
