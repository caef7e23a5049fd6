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

test_the_policy_may_allow_unencrypted_scratch if {
	framework.rw_mount_device.allowed with input as object.union(request, {"encrypted": false})
		with data.policy.allow_unencrypted_scratch as true
}
