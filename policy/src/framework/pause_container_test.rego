package pause_container_test

import data.fixtures
import data.framework

allowed(listed, started) if {
	framework.pause_container.allowed with input as {"containerID": fixtures.id}
		with data.metadata.matches as {fixtures.id: [object.union(fixtures.container, listed)]}
		with data.metadata.started as started
}

test_a_running_container_that_allows_it if {
	allowed({"allow_pause": true}, {fixtures.id: {"privileged": false}})
	not allowed({"allow_pause": true}, {})
	not allowed({"allow_pause": false}, {fixtures.id: {"privileged": false}})
	not allowed({}, {fixtures.id: {"privileged": false}})
}
