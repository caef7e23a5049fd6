# A container's root file system: exactly the layers of some container. The request has the top layer first.
package framework

default mount_overlay := {"allowed": false}

mount_overlay := {
	"allowed": true,
	"metadata": [
		{"name": "matches", "action": "add", "key": input.containerID, "value": overlay_matches},
		{"name": "overlayTargets", "action": "add", "key": input.target, "value": true},
	],
} if {
	not matching
	not overlay_mounted(input.target)
	count(overlay_matches) > 0
}

default overlay_matches := []

overlay_matches := casemate_where(candidate_containers, "layers", mounted_layers) if count(mounted_layers) == count(input.layerPaths)

# Policies list the bottom layer first.
mounted_layers := array.reverse([hash |
	some path in input.layerPaths
	hash := data.metadata.devices[path]
])

overlay_mounted(target) if data.metadata.overlayTargets[target]

errors_of("mount_overlay") := mount_overlay_errors

mount_overlay_errors contains "overlay has already been mounted" if matching

mount_overlay_errors contains "no matching containers for overlay" if count(overlay_matches) == 0
