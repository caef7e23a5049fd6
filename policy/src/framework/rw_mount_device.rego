# A writable device: formatted by the guest, and encrypted unless the policy allows unencrypted scratch. It is on a disk or in the
# guest's memory; a policy with `scratch_medium` allows that medium alone.
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
	medium_fits
	mount_point_valid
}

encryption_fits if data.policy.allow_unencrypted_scratch

encryption_fits if input.encrypted

writable_filesystem if input.filesystem in ["ext4", "xfs"]

writable_filesystem if {
	input.filesystem == "tmpfs"
	scratch_on == "memory"
}

scratch_on := object.get(input, "medium", "disk")

# A set, so that a policy without the word differs from one with a value that is no medium, such as false.
required_media := {medium | medium := data.policy.scratch_medium}

medium_fits if count(required_media) == 0

medium_fits if required_media == {scratch_on}

errors_of("rw_mount_device") := rw_mount_device_errors | mount_point_errors

rw_mount_device_errors contains "unencrypted scratch not allowed, non-readonly mount request for SCSI disk must request encryption" if {
	not encryption_fits
}

rw_mount_device_errors contains "ensureFilesystem must be set on rw device mounts" if not input.ensureFilesystem

rw_mount_device_errors contains "rw device mounts uses a filesystem that is not allowed" if not writable_filesystem

rw_mount_device_errors contains sprintf("scratch_medium is %v: %v was asked for", [medium, scratch_on]) if {
	not medium_fits
	some medium in required_media
}
