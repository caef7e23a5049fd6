package load_transparency_trust_list_test

import data.framework

listed := {"issuer": "did:x", "subject": "ledgers", "minimum_svn": "2", "allowed_ledgers": ["a", "b"]}

request := {"issuer": "did:x", "subject": "ledgers", "svn": 2, "ledgers": ["b", "c"]}

answer(change, lists) := found if {
	found := framework.load_transparency_trust_list with input as object.union(request, change)
		with data.policy.transparency_trust_lists as lists
}

errors(change, lists) := found if {
	found := framework.errors with input as object.union(object.union(request, change), {"rule": "load_transparency_trust_list"})
		with data.policy.framework_version as "0.5.0"
		with data.policy.transparency_trust_lists as lists
}

no_candidate := "no TTL candidate matches the provided TTL's issuer, subject and svn"

test_only_listed_ledgers_are_taken if {
	answer({}, [listed]) == {"allowed": true, "allowed_ledgers": ["b"]}
	answer({}, [object.union(listed, {"allowed_ledgers": ["*"]})]).allowed_ledgers == ["b", "c"]
	answer({"ledgers": ["c"]}, [listed]) == {"allowed": false}
	errors({"ledgers": ["c"]}, [listed]) == {"The provided TTL does not contain any ledgers it is allowed to load"}
}

test_issuer_subject_and_svn_must_match if {
	every change in [{"issuer": "did:y"}, {"subject": "other"}, {"svn": 1}] {
		answer(change, [listed]) == {"allowed": false}
		no_candidate in errors(change, [listed])
	}
	answer({"svn": 3}, [listed]).allowed
}

test_lists_of_loaded_fragments_count if {
	framework.load_transparency_trust_list.allowed with input as request
		with data.metadata.issuers as {"did:f": {"feeds": {"feed": [{"transparency_trust_lists": [listed]}]}}}
}
