package rw_unmount_device_test

import data.framework

request := {"unmountTarget": "/x"}

errors(devices, rw_devices) := found if {
	found := framework.errors with input as object.union(request, {"rule": "rw_unmount_device"})
		with data.policy.framework_version as "0.5.0"
		with data.metadata.devices as devices
		with data.metadata.rw_devices as rw_devices
}

test_a_mounted_writable_device_is_forgotten if {
	answer := framework.rw_unmount_device with input as request with data.metadata.rw_devices as {"/x": true}
	answer == {"allowed": true, "metadata": [{"name": "rw_devices", "action": "remove", "key": "/x"}]}
}

test_no_other_path if {
	not framework.rw_unmount_device.allowed with input as request with data.metadata.rw_devices as {"/y": true}
	errors({}, {}) == {"no device at path to unmount"}
}

test_a_layer_device_is_read_only if {
	not framework.rw_unmount_device.allowed with input as request with data.metadata.devices as {"/x": "top"}
	errors({"/x": "top"}, {}) == {"received read-write unmount request, but device provided is read-only"}
}
