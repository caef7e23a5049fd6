package mount_overlay_test

import data.fixtures
import data.framework

request := {"containerID": fixtures.id, "layerPaths": ["/m1", "/m0"], "target": "/rootfs"}

allowed(change, devices) if {
	framework.mount_overlay.allowed with input as object.union(request, change)
		with data.policy.containers as [fixtures.container]
		with data.policy.framework_version as "0.5.0"
		with data.metadata.devices as devices
}

test_the_top_layer_comes_first if {
	allowed({}, {"/m0": "bottom", "/m1": "top"})
	not allowed({}, {"/m0": "top", "/m1": "bottom"})
	not allowed({}, {"/m0": "bottom"})
	not allowed({"layerPaths": ["/m1"]}, {"/m0": "bottom", "/m1": "top"})
	not allowed({"layerPaths": ["/m1", "/m0", "/m0"]}, {"/m0": "bottom", "/m1": "top"})
}

test_a_container_gets_one_overlay if {
	not framework.mount_overlay.allowed with input as request
		with data.policy.containers as [fixtures.container]
		with data.policy.framework_version as "0.5.0"
		with data.metadata.devices as {"/m0": "bottom", "/m1": "top"}
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
}

test_a_target_is_used_once if {
	not framework.mount_overlay.allowed with input as request
		with data.policy.containers as [fixtures.container]
		with data.policy.framework_version as "0.5.0"
		with data.metadata.devices as {"/m0": "bottom", "/m1": "top"}
		with data.metadata.overlayTargets as {"/rootfs": true}
}

test_unmounting if {
	framework.unmount_overlay.allowed with input as {"unmountTarget": "/rootfs"}
		with data.metadata.overlayTargets as {"/rootfs": true}
	not framework.unmount_overlay.allowed with input as {"unmountTarget": "/rootfs"}
}
