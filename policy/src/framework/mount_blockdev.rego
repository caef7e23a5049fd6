# Raw block devices: no policy can describe them yet.
package framework

default mount_blockdev := {"allowed": false}

default unmount_blockdev := {"allowed": false}

errors contains "blockdev mounts are not supported" if {
	input.rule in ["mount_blockdev", "unmount_blockdev"]
}
