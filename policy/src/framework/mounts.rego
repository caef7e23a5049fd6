# Mounts of a container: those of its own list, and the default mounts.
#
# A mount matches an entry with its type, destination and options (in any order), and its source: equal, or below the directory of
# a prefix (the rest is a pattern), or a directory shared with this container.
package framework

mount_places := {
	"sandbox_prefix": data.sandboxPrefix,
	"sandbox_dir": object.get(input, "sandboxDir", null),
	"huge_pages_prefix": data.hugePagesPrefix,
	"huge_pages_dir": object.get(input, "hugePagesDir", null),
	"plan9_prefix": data.plan9Prefix,
	"shared": shared_directories,
	"container": object.get(input, "containerID", null),
	"privileged": data.privilegedMounts,
}

default shared_directories := {}

shared_directories := data.metadata.p9mounts

# Mounts that no default allows, only the container's own list.
special_mounts := [mount |
	some mount in casemate_mounts_refused([{"mounts": data.defaultMounts}], input.mounts, mount_places)
	not writable_sysfs_of_the_pod(mount)
]

# The pause container may have /sys writable.
writable_sysfs_of_the_pod(mount) if {
	input.isSandboxContainer
	mount.type == "sysfs"
	mount.source == "sysfs"
	mount.destination == "/sys"
	same_members(mount.options, ["nosuid", "noexec", "nodev", "rw"])
}

mounts_fit(container) if count(casemate_mounts_fitting([container], special_mounts, mount_places)) > 0

mount_fits(constraint, mount) if count(casemate_mounts_refused([{"mounts": [constraint]}], [mount], mount_places)) == 0
