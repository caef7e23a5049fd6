package windows_test

import data.fixtures
import data.framework

windows_container := {"layers": ["bottom", "top"], "mounted_cim": ["cim"]}

request := {"containerID": fixtures.id, "layerHashes": ["top", "bottom"], "mountedCim": ["cim"]}

answer(change, matches) := found if {
	found := framework.mount_cims with input as object.union(request, change)
		with data.policy.framework_version as "0.5.0"
		with data.policy.containers as [windows_container]
		with data.metadata.matches as matches
}

test_layers_and_image_are_those_of_a_container if {
	answer({}, {}).metadata[0].value == [windows_container]
	not answer({"layerHashes": ["bottom", "top"]}, {}).allowed
	not answer({"mountedCim": ["other"]}, {}).allowed
}

test_a_container_is_mounted_once if {
	not answer({}, {fixtures.id: [windows_container]}).allowed
}

test_registry_and_logs_are_denied if {
	framework.registry_changes == {"allowed": false}
	framework.log_provider == {"allowed": false, "providers_to_keep": []}
	errors := framework.errors with input as {"rule": "log_provider"} with data.policy.framework_version as "0.5.0"
	errors == {"log provider not allowed by policy"}
}
