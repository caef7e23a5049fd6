# Metadata of the framework. The enforcer holds the values; these rules make them available under data.metadata without reloading
# data after every change.
package metadata

devices := casemate_state("devices")

fragment_parameters := casemate_state("fragment_parameters")

issuers := casemate_state("issuers")

matches := casemate_state("matches")

operatingsystem := casemate_state("operatingsystem")

overlayTargets := casemate_state("overlayTargets")

p9mounts := casemate_state("p9mounts")

rw_devices := casemate_state("rw_devices")

scratch_mounts := casemate_state("scratch_mounts")

started := casemate_state("started")
