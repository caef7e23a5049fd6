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

in_memory := {"filesystem": "tmpfs", "medium": "memory"}

test_scratch_in_memory_is_a_tmpfs if {
	allowed(in_memory)
	not allowed({"filesystem": "tmpfs"})
	not allowed({"filesystem": "tmpfs", "medium": "disk"})
	not allowed(object.union(in_memory, {"target": "/run/gcs/c/1"}))
	not allowed(object.union(in_memory, {"encrypted": false}))
}

test_a_policy_may_require_a_medium if {
	allowed(in_memory) with data.policy.scratch_medium as "memory"
	not allowed({}) with data.policy.scratch_medium as "memory"
	allowed({}) with data.policy.scratch_medium as "disk"
	not allowed(in_memory) with data.policy.scratch_medium as "disk"
}

test_a_medium_that_is_none_denies if {
	every word in ["Memory", "", true, false, null, ["memory"]] {
		not allowed({}) with data.policy.scratch_medium as word
		not allowed(in_memory) with data.policy.scratch_medium as word
	}
}

test_the_reason_names_the_medium if {
	errors := framework.errors with input as object.union(request, {"rule": "rw_mount_device"})
		with data.policy.framework_version as "0.5.0"
		with data.policy.scratch_medium as "memory"
	errors == {"scratch_medium is memory: disk was asked for"}
}
