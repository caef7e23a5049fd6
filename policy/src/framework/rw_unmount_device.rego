# Unmounts a writable device.
package framework

default rw_unmount_device := {"allowed": false}

rw_unmount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "remove", "key": input.unmountTarget}],
} if {
	data.metadata.rw_devices[input.unmountTarget]
}

errors_of("rw_unmount_device") := rw_unmount_device_errors | not_mounted_errors

rw_unmount_device_errors contains "received read-write unmount request, but device provided is read-only" if {
	data.metadata.devices[input.unmountTarget]
}
