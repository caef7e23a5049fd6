package mount_device_test

import data.fixtures
import data.framework

request := {"target": "/run/mounts/scsi/m1", "deviceHash": "top", "mountPathRegex": "/run/mounts/scsi/m[0-9]+"}

allowed(change) if {
	framework.mount_device.allowed with input as object.union(request, change) with data.policy.containers as [fixtures.container]
}

test_a_listed_layer_at_a_mount_point if {
	allowed({})
	not allowed({"deviceHash": "other"})
	not allowed({"deviceHash": ""})
	not allowed({"target": "/etc"})
	not allowed({"target": "/run/mounts/scsi/m1/x"})
}

test_the_mount_point_is_free if {
	not framework.mount_device.allowed with input as request
		with data.policy.containers as [fixtures.container]
		with data.metadata.devices as {"/run/mounts/scsi/m1": "bottom"}
	not framework.mount_device.allowed with input as request
		with data.policy.containers as [fixtures.container]
		with data.metadata.rw_devices as {"/run/mounts/scsi/m1": true}
}

test_layers_of_fragments_count if {
	framework.mount_device.allowed with input as request
		with data.metadata.issuers as {"did": {"feeds": {"feed": [{"containers": [fixtures.container]}]}}}
}
