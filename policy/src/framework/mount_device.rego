# A layer device: its root hash must belong to some container.
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

errors contains "deviceHash not found" if {
	input.rule == "mount_device"
	not layer_listed
}

errors contains "device already mounted at path" if {
	input.rule in ["mount_device", "rw_mount_device"]
	mount_point_taken
}

errors contains "mountpoint invalid" if {
	input.rule in ["mount_device", "rw_mount_device"]
	not mount_point_valid
}
