# The end of a layer device.
package framework

default unmount_device := {"allowed": false}

unmount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "remove", "key": input.unmountTarget}],
} if {
	data.metadata.devices[input.unmountTarget]
}

errors contains "no device at path to unmount" if {
	input.rule in ["unmount_device", "rw_unmount_device"]
	not data.metadata.devices[input.unmountTarget]
	not data.metadata.rw_devices[input.unmountTarget]
}

errors contains "received read-only unmount request, but device provided is read-write" if {
	input.rule == "unmount_device"
	data.metadata.rw_devices[input.unmountTarget]
}
