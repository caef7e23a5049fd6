package rw_mount_device_test

import data.framework

request := {
	"target": "/run/gcs/c/0000000000000000000000000000000000000000000000000000000000000001",
	"encrypted": true,
	"ensureFilesystem": true,
	"filesystem": "ext4",
	"mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
}

allowed(change) if framework.rw_mount_device.allowed with input as object.union(request, change)

test_every_condition_counts if {
	allowed({})
	allowed({"filesystem": "xfs"})
	not allowed({"filesystem": "btrfs"})
	not allowed({"ensureFilesystem": false})
	not allowed({"target": "/run/gcs/c/1"})
	not allowed({"encrypted": false})
}

test_the_policy_may_renounce_encryption if {
	framework.rw_mount_device.allowed with input as object.union(request, {"encrypted": false})
		with data.policy.allow_unencrypted_scratch as true
}

test_unmounting if {
	gone := {"unmountTarget": "/x"}
	framework.rw_unmount_device.allowed with input as gone with data.metadata.rw_devices as {"/x": true}
	not framework.rw_unmount_device.allowed with input as gone with data.metadata.devices as {"/x": "top"}
}

test_raw_devices_never if {
	not framework.mount_blockdev.allowed with input as {"target": "/dev/x"}
	not framework.unmount_blockdev.allowed with input as {"unmountTarget": "/dev/x"}
}
