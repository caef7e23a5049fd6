package metadata_test

# Without `with`, the values come from the enforcer's state before the first decision.
test_the_operating_system_comes_from_the_base_document if {
	data.metadata.operatingsystem == {"ostype": "linux"}
}

test_all_other_names_are_undefined_at_first if {
	not data.metadata.devices
	not data.metadata.fragment_parameters
	not data.metadata.issuers
	not data.metadata.matches
	not data.metadata.overlayTargets
	not data.metadata.p9mounts
	not data.metadata.rw_devices
	not data.metadata.scratch_mounts
	not data.metadata.started
}
