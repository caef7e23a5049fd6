package fragments_test

import data.framework

fragment := {"issuer": "did:x", "feed": "app", "minimum_svn": "2", "includes": ["containers"]}

request := {
	"issuer": "did:x",
	"feed": "app",
	"namespace": "ns",
	"fragment_loaded": false,
	"has_header_svn": false,
	"header_svn": null,
	"receipts": [],
}

answer(change, fragments) := found if {
	found := framework.load_fragment with input as object.union(request, change)
		with data.policy.framework_version as "0.5.0"
		with data.policy.fragments as fragments
}

errors(change, fragments) := found if {
	found := framework.errors with input as object.union(object.union(request, change), {"rule": "load_fragment"})
		with data.policy.framework_version as "0.5.0"
		with data.policy.fragments as fragments
}

test_an_expected_issuer_and_feed if {
	answer({}, [fragment]).allowed
	not answer({}, []).allowed
	"invalid fragment issuer" in errors({"issuer": "did:y"}, [fragment])
	"invalid fragment feed" in errors({"feed": "other"}, [fragment])
}

test_the_header_version_must_reach_the_minimum if {
	answer({"has_header_svn": true, "header_svn": 2}, [fragment]).allowed
	not answer({"has_header_svn": true, "header_svn": 1}, [fragment]).allowed
}

test_receipts_are_demanded if {
	strict := object.union(fragment, {"required_receipts": ["TTL:root", "ledger"]})
	"missing receipt from ledger" in errors({}, [strict])
	not answer({"receipts": [{"issuer": "ledger", "ttl_subjects": []}]}, [strict]).allowed
	answer({"receipts": [{"issuer": "ledger", "ttl_subjects": ["root"]}]}, [strict]).allowed
}

test_parameters_are_handed_on if {
	answer({}, [object.union(fragment, {"parameters": {"a": 1}}), fragment]).parameters == [{"a": 1}]
}

test_without_a_loader_the_text_counts_for_nothing if not answer({"fragment_loaded": true}, [fragment]).allowed
