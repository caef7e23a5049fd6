package unmount_device_test

import data.framework

request := {"unmountTarget": "/x"}

errors(devices, rw_devices) := found if {
	found := framework.errors with input as object.union(request, {"rule": "unmount_device"})
		with data.policy.framework_version as "0.5.0"
		with data.metadata.devices as devices
		with data.metadata.rw_devices as rw_devices
}

test_a_mounted_layer_is_forgotten if {
	answer := framework.unmount_device with input as request with data.metadata.devices as {"/x": "top"}
	answer == {"allowed": true, "metadata": [{"name": "devices", "action": "remove", "key": "/x"}]}
}

test_no_other_path if {
	not framework.unmount_device.allowed with input as request with data.metadata.devices as {"/y": "top"}
	errors({"/y": "top"}, {}) == {"no device at path to unmount"}
}

test_a_writable_device_needs_its_own_point if {
	not framework.unmount_device.allowed with input as request with data.metadata.rw_devices as {"/x": true}
	errors({}, {"/x": true}) == {"received read-only unmount request, but device provided is read-write"}
}
