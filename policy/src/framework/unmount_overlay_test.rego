package unmount_overlay_test

import data.framework

request := {"unmountTarget": "/run/gcs/c/1/rootfs"}

test_a_mounted_overlay_is_forgotten if {
	answer := framework.unmount_overlay with input as request with data.metadata.overlayTargets as {request.unmountTarget: true}
	answer.allowed
	answer.metadata == [{"name": "overlayTargets", "action": "remove", "key": request.unmountTarget}]
}

test_no_other_path if {
	not framework.unmount_overlay.allowed with input as request with data.metadata.overlayTargets as {"/run/gcs/c/2/rootfs": true}
	errors := framework.errors with input as object.union(request, {"rule": "unmount_overlay"})
		with data.policy.framework_version as "0.5.0"
		with data.metadata.overlayTargets as {"/run/gcs/c/2/rootfs": true}
	errors == {"no overlay at path to unmount"}
}
