# The end of a writable device.
package framework

default rw_unmount_device := {"allowed": false}

rw_unmount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "remove", "key": input.unmountTarget}],
} if {
	data.metadata.rw_devices[input.unmountTarget]
}

errors contains "received read-write unmount request, but device provided is read-only" if {
	input.rule == "rw_unmount_device"
	data.metadata.devices[input.unmountTarget]
}
