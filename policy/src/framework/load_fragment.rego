# Signed policy fragments: allowed issuers, feeds, minimum versions and receipts.
package framework

default load_fragment := {"allowed": false}

# The first query, without the fragment's rules: is this feed of the issuer expected?
load_fragment := {"allowed": true, "parameters": expected_parameters} if {
	not input.fragment_loaded
	some candidate in expected_fragments
	header_svn_fits(candidate)
	count(missing_receipts(candidate)) == 0
}

# The second query, with the fragment's rules loaded. Entries for the same issuer and feed with different answers conflict.
load_fragment := {"allowed": true, "add_module": includes_namespace(candidate), "metadata": array.concat([issuer_update], given_parameters(candidate))} if {
	input.fragment_loaded
	some candidate in expected_fragments
	receipts_still_fit(candidate)
	fragment_svn_fits(candidate)
	header_matches_fragment
	issuer_update := {
		"name": "issuers",
		"action": "update",
		"key": input.issuer,
		"value": {"feeds": object.union(loaded_feeds, {input.feed: array.concat([included_objects(candidate)], loaded_under_feed)})},
	}
	fragment_objects
}

# hcsshim checks receipts in the first query only: of two entries for one feed, the one without required receipts may answer the
# first query, and the other one the second.
receipts_still_fit(_) if not data.policy.strict

receipts_still_fit(candidate) if count(missing_receipts(candidate)) == 0

includes_namespace(candidate) if "namespace" in candidate.includes

includes_namespace(candidate) := false if not "namespace" in candidate.includes

default loaded_feeds := {}

loaded_feeds := data.metadata.issuers[input.issuer].feeds

default loaded_under_feed := []

loaded_under_feed := data.metadata.issuers[input.issuer].feeds[input.feed]

# Parameters that this fragment sets for fragments loaded later.
given_parameters(candidate) := [command |
	registers_parameters(candidate)
	some fragment in declared_in_fragment("fragments")
	parameters := fragment.parameters
	command := {
		"name": "fragment_parameters",
		"type": "set",
		"action": "add",
		"value": {"issuer": fragment.issuer, "feed": fragment.feed, "parameters": parameters},
	}
]

# hcsshim registers them whatever the candidate includes of the fragment.
registers_parameters(_) if not data.policy.strict

registers_parameters(candidate) if "fragments" in candidate.includes

# Parameters set by loaded fragments come first.
expected_parameters := array.concat(
	[given.parameters |
		some given in data.metadata.fragment_parameters
		given.issuer == input.issuer
		given.feed == input.feed
	],
	[fragment.parameters |
		some fragment in policy_fragments
		fragment.issuer == input.issuer
		fragment.feed == input.feed
	],
)

header_svn_fits(_) if not input.has_header_svn

header_svn_fits(candidate) if {
	input.has_header_svn
	svn_reaches(input.header_svn, candidate.minimum_svn)
}

# The version may be in the header only; `false` is no version.
fragment_states_svn if data[fragment_package].svn

fragment_svn_fits(candidate) if {
	fragment_states_svn
	svn_reaches(data[fragment_package].svn, candidate.minimum_svn)
}

fragment_svn_fits(candidate) if {
	not fragment_states_svn
	input.has_header_svn
	svn_reaches(input.header_svn, candidate.minimum_svn)
}

header_matches_fragment if not input.has_header_svn

header_matches_fragment if not fragment_states_svn

header_matches_fragment if {
	input.has_header_svn
	to_number(input.header_svn) == to_number(data[fragment_package].svn)
}

missing_receipts(candidate) := {required |
	some required in object.get(candidate, "required_receipts", [])
	not receipt_fits(required)
}

receipt_fits("*") if count(input.receipts) > 0

receipt_fits(required) if {
	some receipt in input.receipts
	receipt.issuer == required
}

receipt_fits(required) if {
	startswith(required, "TTL:")
	some receipt in input.receipts
	substring(required, 4, -1) in receipt.ttl_subjects
}

errors_of("load_fragment") := load_fragment_errors

load_fragment_errors contains "invalid fragment issuer" if not some_fragment_issuer_fits

some_fragment_issuer_fits if {
	some fragment in candidate_fragments
	fragment.issuer == input.issuer
}

load_fragment_errors contains "invalid fragment feed" if {
	some_fragment_issuer_fits
	count(expected_fragments) == 0
}

load_fragment_errors contains sprintf("missing receipt from %s", [missing]) if {
	not input.fragment_loaded
	some candidate in expected_fragments
	some missing in missing_receipts(candidate)
}

load_fragment_errors contains "fragment svn is below the specified minimum" if {
	input.fragment_loaded
	count(expected_fragments) > 0
	not some_fragment_svn_differs_in_type
	not some_fragment_svn_fits
}

some_fragment_svn_fits if {
	some candidate in expected_fragments
	fragment_svn_fits(candidate)
}

load_fragment_errors contains "fragment svn and the specified minimum are different types" if {
	input.fragment_loaded
	some_fragment_svn_differs_in_type
}

some_fragment_svn_differs_in_type if {
	some candidate in expected_fragments
	svn_types_differ(data[fragment_package].svn, candidate.minimum_svn)
}

some_fragment_svn_differs_in_type if {
	input.has_header_svn
	some candidate in expected_fragments
	svn_types_differ(input.header_svn, candidate.minimum_svn)
}

svn_types_differ(svn, minimum) if {
	svn != false
	is_number(to_number(svn))
	semver.is_valid(minimum)
}

svn_types_differ(svn, minimum) if {
	semver.is_valid(svn)
	is_number(to_number(minimum))
}

load_fragment_errors contains sprintf("svn in header %v does not match svn in fragment rego %v", [input.header_svn, data[fragment_package].svn]) if {
	input.fragment_loaded
	not header_matches_fragment
}

load_fragment_errors contains "missing fragment svn in either header or rego payload" if {
	input.fragment_loaded
	not input.has_header_svn
	not fragment_states_svn
}

load_fragment_errors contains sprintf("fragment framework_version is missing. Current version: %s", [version]) if {
	input.fragment_loaded
	not fragment_version
}

load_fragment_errors contains sprintf("fragment framework_version is ahead of the current version: %s is greater than %s", [fragment_version, version]) if {
	input.fragment_loaded
	fragment_age > 0
}
