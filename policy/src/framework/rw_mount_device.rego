# A writable device: empty, made by the guest, and encrypted unless the policy says otherwise.
package framework

default rw_mount_device := {"allowed": false}

rw_mount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "add", "key": input.target, "value": true}],
} if {
	not mount_point_taken
	encryption_fits
	input.ensureFilesystem
	writable_filesystem
	mount_point_valid
}

encryption_fits if data.policy.allow_unencrypted_scratch

encryption_fits if input.encrypted

writable_filesystem if input.filesystem in ["ext4", "xfs"]

errors contains "unencrypted scratch not allowed, non-readonly mount request for SCSI disk must request encryption" if {
	input.rule == "rw_mount_device"
	not encryption_fits
}

errors contains "ensureFilesystem must be set on rw device mounts" if {
	input.rule == "rw_mount_device"
	not input.ensureFilesystem
}

errors contains "rw device mounts uses a filesystem that is not allowed" if {
	input.rule == "rw_mount_device"
	not writable_filesystem
}
