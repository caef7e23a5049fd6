# Upper directories of overlays on the scratch disk.
package framework

default scratch_mount := {"allowed": false}

scratch_mount := {
	"allowed": true,
	"metadata": [{"name": "scratch_mounts", "action": "add", "key": input.target, "value": {"encrypted": input.encrypted}}],
} if {
	not scratch_mounted(input.target)
	encryption_fits
}

scratch_mounted(target) if data.metadata.scratch_mounts[target]

default scratch_unmount := {"allowed": false}

scratch_unmount := {
	"allowed": true,
	"metadata": [{"name": "scratch_mounts", "action": "remove", "key": input.unmountTarget}],
} if {
	scratch_mounted(input.unmountTarget)
}

errors_of("scratch_mount") := scratch_mount_errors

scratch_mount_errors contains "unencrypted scratch not allowed" if not encryption_fits

scratch_mount_errors contains "scratch already mounted at path" if scratch_mounted(input.target)

errors_of("scratch_unmount") := scratch_unmount_errors

scratch_unmount_errors contains "no scratch at path to unmount" if not scratch_mounted(input.unmountTarget)
