package confine_container_test

import data.fixtures
import data.framework

# A copy: the framework's value outside of `with` would be evaluated without the input.
masked := [
	"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/proc/scsi", "/sys/firmware",
]

request := {
	"containerID": fixtures.id,
	"sandboxID": fixtures.id,
	"maskedPaths": masked,
	"readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
	"namespaces": [
		{"type": "pid", "path": ""},
		{"type": "mount", "path": ""},
		{"type": "cgroup", "path": ""},
		{"type": "network", "path": "pod"},
		{"type": "ipc", "path": "pod"},
		{"type": "uts", "path": ""},
	],
	"rlimits": [],
	"sysctls": {},
	"readonlyRoot": false,
	"mounts": fixtures.create.mounts,
	"oomScoreAdj": 0,
	"limits": {},
	"sandboxDir": "/sandbox",
}

allowed(change, listed) if {
	framework.confine_container.allowed with input as object.union(request, change)
		with data.metadata.matches as {fixtures.id: [object.union(fixtures.container, listed)]}
}

errors(change, listed) := found if {
	found := framework.errors with input as object.union(object.union(request, change), {"rule": "confine_container"})
		with data.policy.framework_version as "0.5.0"
		with data.metadata.matches as {fixtures.id: [object.union(fixtures.container, listed)]}
}

test_the_strictest_confinement_is_allowed if {
	allowed({}, {})
	allowed({"maskedPaths": array.concat(masked, ["/proc/interrupts", "/sys/devices/system/cpu/cpu12/thermal_throttle"])}, {})
}

test_nothing_of_the_image_is_hidden if {
	every path in ["/etc/redis.conf", "/proc/self/root/etc/redis.conf", "/sys/devices/system/cpu/cpu0/thermal_throttle/x"] {
		not allowed({"maskedPaths": array.concat(masked, [path])}, {})
		not allowed({"readonlyPaths": array.concat(request.readonlyPaths, [path])}, {})
	}
	allowed({"maskedPaths": array.concat(masked, ["/etc/redis.conf"])}, {"masked_paths": array.concat(masked, ["/etc/redis.conf"])})
	errors({"maskedPaths": array.concat(masked, ["/etc"])}, {}) == {"invalid masked paths"}
}

test_nothing_is_uncovered if {
	not allowed({"maskedPaths": []}, {})
	allowed({"maskedPaths": []}, {"masked_paths": []})
	not allowed({"readonlyPaths": []}, {})
	errors({"maskedPaths": []}, {}) == {"invalid masked paths"}
}

test_namespaces_are_new_or_the_pod_s if {
	without := [namespace | some namespace in request.namespaces; namespace.type != "pid"]
	not allowed({"namespaces": without}, {})
	not allowed({"namespaces": array.concat(without, [{"type": "pid", "path": "/proc/1/ns/pid"}])}, {})
	not allowed({"namespaces": array.concat(without, [{"type": "pid", "path": "pod"}])}, {})
	allowed({"namespaces": array.concat(without, [{"type": "pid", "path": "pod"}])}, {"pod_namespaces": ["network", "ipc", "pid"]})
}

test_a_namespace_is_shared_if_both_entries_say_so if {
	without := [namespace | some namespace in request.namespaces; namespace.type != "pid"]
	joins := object.union(request, {"sandboxID": "donor", "namespaces": array.concat(without, [{"type": "pid", "path": "pod"}])})
	listed := ["network", "ipc", "pid"]
	own := object.union(fixtures.container, {"pod_namespaces": listed})
	framework.confine_container.allowed with input as joins
		with data.metadata.matches as {fixtures.id: [own], "donor": [fixtures.container, own]}
	not framework.confine_container.allowed with input as joins
		with data.metadata.matches as {fixtures.id: [own], "donor": [fixtures.container]}
	not framework.confine_container.allowed with input as joins
		with data.metadata.matches as {fixtures.id: [fixtures.container], "donor": [own]}
	not framework.confine_container.allowed with input as joins
		with data.metadata.matches as {fixtures.id: [own]}
}

test_limits_and_parameters_are_listed if {
	limit := {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}
	not allowed({"rlimits": [limit]}, {})
	allowed({"rlimits": [limit]}, {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2048, "soft": 1024}]})
	not allowed({"rlimits": [limit]}, {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 512, "soft": 512}]})
	not allowed({"sysctls": {"net.core.somaxconn": "9"}}, {})
	allowed({"sysctls": {"net.core.somaxconn": "9"}}, {"sysctls": {"net.core.somaxconn": "9"}})
	errors({"sysctls": {"a": "1"}, "rlimits": [limit]}, {}) == {"invalid sysctls", "invalid rlimits"}
}

test_a_root_that_must_be_read_only if {
	allowed({"readonlyRoot": true}, {"readonly_root": true})
	allowed({"readonlyRoot": true}, {})
	not allowed({}, {"readonly_root": true})
	errors({}, {"readonly_root": true}) == {"the root file system must be read-only"}
}

test_required_mounts_are_there_and_visible if {
	data_mount := object.union(fixtures.container.mounts[0], {"required": true})
	over_it := {"destination": "/data", "options": ["ro"], "source": "tmpfs", "type": "tmpfs"}
	allowed({}, {"mounts": [data_mount]})
	not allowed({"mounts": []}, {"mounts": [data_mount]})
	not allowed({"mounts": array.concat(request.mounts, [over_it])}, {"mounts": [data_mount]})
	not allowed({"mounts": [over_it]}, {"mounts": [data_mount]})
	not allowed({"mounts": array.concat(request.mounts, [object.union(over_it, {"destination": "//data/"})])}, {"mounts": [data_mount]})
	allowed({"mounts": []}, {})
	errors({"mounts": []}, {"mounts": [data_mount]}) == {"a required mount is missing"}
}

test_the_oom_score_and_limits_are_within_bounds if {
	score := {"oom_score_adj": {"min": -10, "max": 0}}
	allowed({"oomScoreAdj": -10}, score)
	not allowed({"oomScoreAdj": -11}, score)
	not allowed({"oomScoreAdj": 1}, score)
	allowed({"oomScoreAdj": 1000}, {})
	not allowed({"limits": {"memory.max": 1}}, {"limits": {"memory.max": {"min": 4096}}})
	errors({"oomScoreAdj": 1}, object.union(score, {"limits": {"memory.max": {"max": 4096}}})) == {"invalid OOM score", "invalid limits"}
}
