# Confinement of a container, for policies with casemate_version. A field that a container of the policy lacks has the strictest
# default: OCI's masked and read-only paths, new namespaces except for the pod's network, ipc and uts, no rlimits, no sysctls. A root file
# system, mounts, an OOM score and limits are as the host chooses them, unless the container has a field about them.
package framework

default confine_container := {"allowed": false}

confine_container := {
	"allowed": true,
	"metadata": [{"name": "matches", "action": "update", "key": input.containerID, "value": confined}],
} if {
	not container_started
	count(confined) > 0
}

confined := [container |
	some container in matching
	paths_hidden(container)
	paths_read_only(container)
	namespaces_fit(container)
	rlimits_fit(container)
	sysctls_fit(container)
	root_fits(container)
	required_mounts_present(container)
	oom_score_fits(container)
	created_within_limits(container)
]

default_masked_paths := [
	"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/proc/scsi", "/sys/firmware",
]

default_readonly_paths := ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

# Namespaces that may be the pod's; all others are new.
default_pod_namespaces := ["network", "ipc", "uts"]

own_namespaces := {"pid", "mount", "cgroup"}

# All listed paths must be masked. Beyond them only paths that runtimes mask by default may be: masking any other path would hide
# files of the image, such as a configuration or a deny list, from the container.
paths_hidden(container) if {
	listed := object.get(container, "masked_paths", default_masked_paths)
	every path in listed {
		path in input.maskedPaths
	}
	every path in input.maskedPaths {
		may_be_guarded(path, listed)
	}
}

paths_read_only(container) if {
	listed := object.get(container, "readonly_paths", default_readonly_paths)
	every path in listed {
		path in array.concat(input.readonlyPaths, input.maskedPaths)
	}
	every path in input.readonlyPaths {
		may_be_guarded(path, listed)
	}
}

# Exact names: links below /proc/self or /proc/1 lead back into the image.
may_be_guarded(path, listed) if path in listed

may_be_guarded(path, _) if path in default_masked_paths

may_be_guarded(path, _) if path in default_readonly_paths

may_be_guarded(path, _) if path in {"/proc/interrupts", "/sys/devices/virtual/powercap"}

may_be_guarded(path, _) if regex.match(`^/sys/devices/system/cpu/cpu[0-9]+/thermal_throttle$`, path)

# Each namespace is new or the pod's, and none is missing: for a missing one, the process would stay in the guest's.
namespaces_fit(container) if {
	shared := {kind | some kind in object.get(container, "pod_namespaces", default_pod_namespaces)}
	every namespace in input.namespaces {
		namespace_fits(namespace, shared)
	}
	kinds := {namespace.type | some namespace in input.namespaces}
	every kind in (own_namespaces | {"network", "ipc", "uts"}) {
		kind in kinds
	}
}

namespace_fits(namespace, _) if namespace.path == ""

namespace_fits(namespace, shared) if {
	namespace.path == "pod"
	namespace.type in shared
	donor_shares(namespace.type)
}

# The pod's namespaces are those of its first container, whose own entry must lend them.
donor_shares(kind) if {
	some donor in data.metadata.matches[input.sandboxID]
	kind in object.get(donor, "pod_namespaces", default_pod_namespaces)
}

rlimits_fit(container) if {
	every limit in input.rlimits {
		rlimit_listed(container, limit)
	}
}

rlimit_listed(container, limit) if {
	some listed in object.get(container, "rlimits", [])
	listed.type == limit.type
	limit.hard <= listed.hard
	limit.soft <= listed.soft
}

sysctls_fit(container) if {
	every name, value in input.sysctls {
		container.sysctls[name] == value
	}
}

# A root file system that must be read-only.
root_fits(container) if not container.readonly_root

root_fits(container) if {
	container.readonly_root == true
	input.readonlyRoot == true
}

# Each mount that is marked as required is there, and no other mount is at its place.
required_mounts_present(container) if {
	required := [mount | some mount in object.get(container, "mounts", []); mount.required == true]
	every constraint in required {
		present := [mount | some mount in input.mounts; names(mount.destination) == names(constraint.destination)]
		count(present) == 1
		mount_fits(constraint, present[0])
	}
}

# A path without the slashes that change nothing.
names(path) := [name | some name in split(path, "/"); name != ""]

oom_score_fits(container) if not container.oom_score_adj

oom_score_fits(container) if {
	input.oomScoreAdj >= object.get(container.oom_score_adj, "min", -1000)
	input.oomScoreAdj <= object.get(container.oom_score_adj, "max", 1000)
}

errors_of("confine_container") := confine_container_errors

confine_container_errors contains "container already started" if container_started

confine_container_errors contains "no overlay is mounted for the container" if not matching

confine_container_errors contains "invalid masked paths" if count([container | some container in matching; paths_hidden(container)]) == 0

confine_container_errors contains "invalid read-only paths" if {
	count([container | some container in matching; paths_read_only(container)]) == 0
}

confine_container_errors contains "invalid namespaces" if count([container | some container in matching; namespaces_fit(container)]) == 0

confine_container_errors contains "invalid rlimits" if count([container | some container in matching; rlimits_fit(container)]) == 0

confine_container_errors contains "invalid sysctls" if count([container | some container in matching; sysctls_fit(container)]) == 0

confine_container_errors contains "the root file system must be read-only" if {
	count([container | some container in matching; root_fits(container)]) == 0
}

confine_container_errors contains "a required mount is missing" if {
	count([container | some container in matching; required_mounts_present(container)]) == 0
}

confine_container_errors contains "invalid OOM score" if count([container | some container in matching; oom_score_fits(container)]) == 0

confine_container_errors contains "invalid limits" if count([container | some container in matching; created_within_limits(container)]) == 0
