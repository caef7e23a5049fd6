# A layer device: its root hash must be a layer of some container.
package framework

default mount_device := {"allowed": false}

mount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "add", "key": input.target, "value": input.deviceHash}],
} if {
	not mount_point_taken
	layer_listed
	mount_point_valid
}

layer_listed if casemate_layer_listed(data.policy.containers, input.deviceHash)

layer_listed if {
	some loaded in loaded_fragments
	casemate_layer_listed(loaded.containers, input.deviceHash)
}

mount_point_taken if data.metadata.devices[input.target]

mount_point_taken if data.metadata.rw_devices[input.target]

mount_point_valid if casemate_matches(input.mountPathRegex, input.target)

errors_of("mount_device") := mount_device_errors | mount_point_errors

mount_device_errors contains "deviceHash not found" if not layer_listed

mount_point_errors contains "device already mounted at path" if mount_point_taken

mount_point_errors contains "mountpoint invalid" if not mount_point_valid
