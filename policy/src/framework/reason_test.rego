package reason_test

import data.fixtures
import data.framework

reason(point, containers) := found if {
	found := framework.reason with input as {"rule": point, "containerID": fixtures.id, "unmountTarget": "/x"}
		with data.policy.framework_version as "0.5.0"
		with data.metadata.matches as {fixtures.id: containers}
}

test_only_errors_of_the_denied_point_are_listed if {
	reason("unmount_device", []).errors == {"no device at path to unmount"}
	reason("unmount_overlay", []).errors == {"no overlay at path to unmount"}
}

test_the_considered_objects_depend_on_the_point if {
	reason("create_container", [fixtures.container]).error_objects == [fixtures.container]
	reason("exec_in_container", [fixtures.container]).error_objects == fixtures.container.exec_processes
	reason("unmount_device", [fixtures.container]).error_objects == null
}

test_considered_fragments_and_external_processes if {
	fragment := {"issuer": "did:x", "feed": "app", "minimum_svn": "1", "includes": []}
	loading := framework.reason with input as {"rule": "load_fragment", "issuer": "did:y", "fragment_loaded": false}
		with data.policy.framework_version as "0.5.0"
		with data.policy.fragments as [fragment]
	loading.error_objects == [fragment]
	process := {"command": ["ls"], "env_rules": [], "working_dir": "/", "allow_stdio_access": false}
	external := framework.error_objects with input as {"rule": "exec_external"}
		with data.policy.framework_version as "0.5.0"
		with data.policy.external_processes as [process]
	external == [process]
}
