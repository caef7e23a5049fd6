# Signed additions to a policy: who may sign which, from which version on, and with whose receipts.
package framework

default load_fragment := {"allowed": false}

# The question before the text is looked at: is this issuer's feed expected?
load_fragment := {"allowed": true, "parameters": expected_parameters} if {
	not input.fragment_loaded
	some candidate in expected_fragments
	header_svn_fits(candidate)
	count(missing_receipts(candidate)) == 0
}

default policy_fragments := []

policy_fragments := data.policy.fragments if policy_age == 0

policy_fragments := [upgraded |
	some fragment in data.policy.fragments
	upgraded := {
		"issuer": fragment.issuer,
		"feed": fragment.feed,
		"minimum_svn": fragment.minimum_svn,
		"includes": fragment.includes,
		"required_receipts": object.get(fragment, "required_receipts", []),
		"parameters": object.get(fragment, "parameters", {}),
	}
] if {
	policy_age < 0
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

# Those that loaded fragments gave come first.
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

errors contains "invalid fragment issuer" if {
	input.rule == "load_fragment"
	not some_fragment_issuer_fits
}

some_fragment_issuer_fits if {
	some fragment in candidate_fragments
	fragment.issuer == input.issuer
}

errors contains "invalid fragment feed" if {
	input.rule == "load_fragment"
	some_fragment_issuer_fits
	count(expected_fragments) == 0
}

errors contains sprintf("missing receipt from %s", [missing]) if {
	input.rule == "load_fragment"
	not input.fragment_loaded
	some candidate in expected_fragments
	some missing in missing_receipts(candidate)
}
