# Unmounts a container's root file system.
package framework

default unmount_overlay := {"allowed": false}

unmount_overlay := {
	"allowed": true,
	"metadata": [{"name": "overlayTargets", "action": "remove", "key": input.unmountTarget}],
} if {
	overlay_mounted(input.unmountTarget)
}

errors_of("unmount_overlay") := unmount_overlay_errors

unmount_overlay_errors contains "no overlay at path to unmount" if not overlay_mounted(input.unmountTarget)
