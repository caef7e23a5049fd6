package create_container_test

import data.fixtures
import data.framework

allowed(change) if {
	framework.create_container.allowed with input as object.union(fixtures.create, change)
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
}

errors(change) := found if {
	found := framework.errors with input as object.union(object.union(fixtures.create, change), {"rule": "create_container"})
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
}

test_the_fitting_request_is_allowed if allowed({})

test_stdio_is_what_the_container_says if {
	answer := framework.create_container with input as fixtures.create
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
	answer.allow_stdio_access
	answer.env_list == fixtures.create.envList
}

test_no_overlay_no_container if {
	not framework.create_container.allowed with input as fixtures.create with data.metadata.matches as {}
}

test_an_id_starts_once if {
	not framework.create_container.allowed with input as fixtures.create
		with data.metadata.matches as {fixtures.id: [fixtures.container]}
		with data.metadata.started as {fixtures.id: {"privileged": false}}
}

test_containers_that_differ_in_stdio_are_undecidable if {
	silent := object.union(fixtures.container, {"allow_stdio_access": false})
	not framework.create_container.allowed with input as fixtures.create
		with data.metadata.matches as {fixtures.id: [fixtures.container, silent]}
}

test_another_command if {
	not allowed({"argList": ["app"]})
	"invalid command" in errors({"argList": ["app"]})
}

test_another_working_directory if {
	not allowed({"workingDir": "/tmp"})
	"invalid working directory" in errors({"workingDir": "/tmp"})
}

test_privileged_needs_allow_elevated if {
	not allowed({"privileged": true})
	"privileged escalation not allowed" in errors({"privileged": true})
}

test_no_new_privileges_is_required if {
	not allowed({"noNewPrivileges": false})
	"invalid noNewPrivileges" in errors({"noNewPrivileges": false})
}

test_another_seccomp_profile if {
	not allowed({"seccompProfileSHA256": "aa"})
	"invalid seccomp" in errors({"seccompProfileSHA256": "aa"})
}

test_devices_are_never_allowed if {
	not allowed({"devices": [{"path": "/dev/kvm"}]})
	"devices not supported" in errors({"devices": [{"path": "/dev/kvm"}]})
}

test_another_mount if {
	change := {"mounts": [{"destination": "/etc", "options": ["rbind", "ro"], "source": "/sandbox/data", "type": "bind"}]}
	not allowed(change)
	"invalid mount list: /etc" in errors(change)
}

test_another_capability if {
	change := {"capabilities": object.union(fixtures.unprivileged, {"ambient": ["CAP_SYS_ADMIN"]})}
	not allowed(change)
	"capabilities don't match" in errors(change)
}

only(names) := {"bounding": names, "effective": names, "inheritable": names, "permitted": names, "ambient": names}

# Of the request one container keeps one capability, the other one another.
test_different_largest_capability_sets_are_one_reason if {
	asked := object.union(fixtures.create, {"rule": "create_container", "capabilities": only(["CAP_KILL", "CAP_CHOWN"])})
	one := object.union(fixtures.container, {"capabilities": only(["CAP_KILL"])})
	other := object.union(fixtures.container, {"capabilities": only(["CAP_CHOWN"])})
	found := framework.errors with input as asked
		with data.metadata.matches as {fixtures.id: [one, other]}
		with data.policy.allow_capability_dropping as true
		with data.policy.framework_version as "0.5.0"
	found == {"containers only distinguishable by capabilties"}
}

test_a_missing_required_variable if {
	not allowed({"envList": ["MODE=a"]})
	"missing required environment variable" in errors({"envList": ["MODE=a"]})
}

test_unknown_variables_are_named if {
	not allowed({"envList": ["PATH=/bin", "X=1", "MODE=c"]})
	"invalid env list: X,MODE" in errors({"envList": ["PATH=/bin", "X=1", "MODE=c"]})
}
