# Raw block devices: policies have no rules for them.
package framework

default mount_blockdev := {"allowed": false}

default unmount_blockdev := {"allowed": false}

errors_of("mount_blockdev") := {"blockdev mounts are not supported"}

errors_of("unmount_blockdev") := {"blockdev mounts are not supported"}
