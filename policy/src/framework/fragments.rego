# Fragments that a policy and its loaded fragments expect, and the objects that a fragment's rules define.
package framework

default policy_fragments := []

policy_fragments := data.policy.fragments if policy_age == 0

policy_fragments := [upgraded_fragment(fragment) | some fragment in data.policy.fragments] if policy_age < 0

upgraded_fragment(fragment) := {
	"issuer": fragment.issuer,
	"feed": fragment.feed,
	"minimum_svn": fragment.minimum_svn,
	"includes": fragment.includes,
	"required_receipts": object.get(fragment, "required_receipts", []),
	"parameters": object.get(fragment, "parameters", {}),
}

candidate_fragments := array.concat(policy_fragments, [fragment |
	some loaded in loaded_fragments
	some fragment in loaded.fragments
])

expected_fragments := [fragment |
	some fragment in candidate_fragments
	fragment.issuer == input.issuer
	fragment.feed == input.feed
]

# The package of the fragment as the interpreter knows it: it takes no keyword as a name.
fragment_package := casemate_package(input.namespace)

# The fragment's own version decides how its objects are upgraded.
fragment_version := data[fragment_package].framework_version

fragment_version := data[fragment_package].framework_svn

fragment_age := semver.compare(fragment_version, version)

# All objects that can be included, by name.
fragment_objects := {
	"containers": fragment_containers,
	"fragments": fragment_fragments,
	"external_processes": fragment_external_processes,
	"transparency_trust_lists": fragment_list_since_0_5_0("transparency_trust_lists"),
	"platform_rules": fragment_list_since_0_5_0("platform_rules"),
} if {
	fragment_age <= 0
}

declared_in_fragment(name) := found if {
	found := data[fragment_package][name]
} else := []

fragment_containers := declared_in_fragment("containers") if fragment_age == 0

fragment_containers := [upgraded_container(container, fragment_version) | some container in declared_in_fragment("containers")] if {
	fragment_age < 0
}

fragment_fragments := declared_in_fragment("fragments") if fragment_age == 0

fragment_fragments := [upgraded_fragment(fragment) | some fragment in declared_in_fragment("fragments")] if fragment_age < 0

fragment_external_processes := declared_in_fragment("external_processes") if fragment_age == 0

fragment_external_processes := [upgraded_process(process) | some process in declared_in_fragment("external_processes")] if {
	fragment_age < 0
}

# Introduced in 0.5.0; in an older fragment the names have another meaning.
fragment_list_since_0_5_0(name) := declared_in_fragment(name) if semver.compare(fragment_version, "0.5.0") >= 0

fragment_list_since_0_5_0(_) := [] if semver.compare(fragment_version, "0.5.0") < 0

included_objects(candidate) := {name: fragment_objects[name] |
	some name in candidate.includes
	fragment_objects[name]
}

# Security version numbers are whole numbers, or semantic versions in old policies; the two kinds are not comparable.
svn_reaches(svn, minimum) if semver.compare(svn, minimum) >= 0

svn_reaches(svn, minimum) if to_number(svn) >= to_number(minimum)
