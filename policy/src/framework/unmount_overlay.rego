# The end of a root file system.
package framework

default unmount_overlay := {"allowed": false}

unmount_overlay := {
	"allowed": true,
	"metadata": [{"name": "overlayTargets", "action": "remove", "key": input.unmountTarget}],
} if {
	overlay_mounted(input.unmountTarget)
}

errors contains "no overlay at path to unmount" if {
	input.rule == "unmount_overlay"
	not overlay_mounted(input.unmountTarget)
}
