# Unmounts a layer device.
package framework

default unmount_device := {"allowed": false}

unmount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "remove", "key": input.unmountTarget}],
} if {
	data.metadata.devices[input.unmountTarget]
}

errors_of("unmount_device") := unmount_device_errors | not_mounted_errors

not_mounted_errors contains "no device at path to unmount" if {
	not data.metadata.devices[input.unmountTarget]
	not data.metadata.rw_devices[input.unmountTarget]
}

unmount_device_errors contains "received read-only unmount request, but device provided is read-write" if {
	data.metadata.rw_devices[input.unmountTarget]
}
