package scratch_test

import data.framework

test_encryption if {
	framework.scratch_mount.allowed with input as {"target": "/s", "encrypted": true}
	not framework.scratch_mount.allowed with input as {"target": "/s", "encrypted": false}
	framework.scratch_mount.allowed with input as {"target": "/s", "encrypted": false}
		with data.policy.allow_unencrypted_scratch as true
}

test_a_directory_is_used_once if {
	not framework.scratch_mount.allowed with input as {"target": "/s", "encrypted": true}
		with data.metadata.scratch_mounts as {"/s": {"encrypted": true}}
	framework.scratch_unmount.allowed with input as {"unmountTarget": "/s"}
		with data.metadata.scratch_mounts as {"/s": {"encrypted": true}}
	not framework.scratch_unmount.allowed with input as {"unmountTarget": "/s"}
}
