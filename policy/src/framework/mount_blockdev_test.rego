package mount_blockdev_test

import data.framework

test_no_block_device_is_attached_or_detached if {
	not framework.mount_blockdev.allowed with input as {"target": "/dev/x"}
	not framework.unmount_blockdev.allowed with input as {"unmountTarget": "/dev/x"}
}

test_the_denial_says_so if {
	every point in ["mount_blockdev", "unmount_blockdev"] {
		errors(point) == {"blockdev mounts are not supported"}
	}
}

errors(point) := found if {
	found := framework.errors with input as {"rule": point} with data.policy.framework_version as "0.5.0"
}
