# Host directories shared with a container whose overlay is mounted.
package framework

default plan9_mount := {"allowed": false}

plan9_mount := {
	"allowed": true,
	"metadata": [{"name": "p9mounts", "action": "add", "key": input.target, "value": owner}],
} if {
	not plan9_mounted(input.target)
	some owner, _ in data.metadata.matches
	casemate_matches(concat("", [input.rootPrefix, "/", owner, input.mountPathPrefix]), input.target)
}

plan9_mounted(target) if data.metadata.p9mounts[target]

default plan9_unmount := {"allowed": false}

plan9_unmount := {
	"allowed": true,
	"metadata": [{"name": "p9mounts", "action": "remove", "key": input.unmountTarget}],
} if {
	plan9_mounted(input.unmountTarget)
}

errors_of("plan9_mount") := plan9_mount_errors

plan9_mount_errors contains "device already mounted at path" if plan9_mounted(input.target)

errors_of("plan9_unmount") := plan9_unmount_errors

plan9_unmount_errors contains "no device at path to unmount" if not plan9_mounted(input.unmountTarget)
