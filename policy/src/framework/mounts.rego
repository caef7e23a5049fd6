# Mounts of a container: those of its own list, those every container may have.
package framework

# What only the container's own list can allow.
special_mounts := [mount |
	some mount in input.mounts
	not default_mount(mount)
]

default_mount(mount) if {
	some constraint in data.defaultMounts
	mount_fits(constraint, mount)
}

# The pod's own container may have /sys writable.
default_mount(mount) if {
	input.isSandboxContainer
	mount.type == "sysfs"
	mount.source == "sysfs"
	mount.destination == "/sys"
	same_members(mount.options, ["nosuid", "noexec", "nodev", "rw"])
}

mounts_fit(container) if {
	every mount in special_mounts {
		mount_allowed(container, mount)
	}
}

mount_allowed(container, mount) if {
	some constraint in container.mounts
	mount_fits(constraint, mount)
}

mount_allowed(container, mount) if {
	container.allow_elevated
	some constraint in data.privilegedMounts
	mount_fits(constraint, mount)
}

mount_fits(constraint, mount) if {
	mount.type == constraint.type
	mount.destination != ""
	mount.destination == constraint.destination
	same_members(mount.options, constraint.options)
	mount_source_fits(constraint.source, mount.source)
}

mount_source_fits(allowed, source) if allowed == source

mount_source_fits(allowed, source) if {
	startswith(allowed, data.sandboxPrefix)
	casemate_matches(replace(allowed, data.sandboxPrefix, input.sandboxDir), source)
}

mount_source_fits(allowed, source) if {
	startswith(allowed, data.hugePagesPrefix)
	casemate_matches(replace(allowed, data.hugePagesPrefix, input.hugePagesDir), source)
}

mount_source_fits(allowed, source) if {
	startswith(allowed, data.plan9Prefix)
	data.metadata.p9mounts[source] == input.containerID
}
