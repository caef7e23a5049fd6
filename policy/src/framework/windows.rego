# Points of Windows guests. Generated policies refer to them; a Linux guest never uses them.
package framework

default mount_cims := {"allowed": false}

mount_cims := {
	"allowed": true,
	"metadata": [{"name": "matches", "action": "add", "key": input.containerID, "value": cim_matches}],
} if {
	not matching
	count(cim_matches) > 0
}

cim_matches := [container |
	some container in candidate_containers
	container.layers == array.reverse(input.layerHashes)
	container.mounted_cim == input.mountedCim
]

default registry_changes := {"allowed": false}

default log_provider := {"allowed": false, "providers_to_keep": []}

errors_of("log_provider") := {"log provider not allowed by policy"}
