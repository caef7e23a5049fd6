package shutdown_container_test

import data.fixtures
import data.framework

answer(started) := found if {
	found := framework.shutdown_container with input as {"containerID": fixtures.id} with data.metadata.started as started
}

test_a_started_container_loses_its_candidates if {
	answer({fixtures.id: true}) == {
		"allowed": true,
		"metadata": [{"name": "matches", "action": "remove", "key": fixtures.id}],
	}
}

test_no_other_container if {
	answer({}) == {"allowed": false}
	answer({"other": true}) == {"allowed": false}
	errors := framework.errors with input as {"rule": "shutdown_container", "containerID": fixtures.id}
		with data.policy.framework_version as "0.5.0"
	errors == {"container not started"}
}
