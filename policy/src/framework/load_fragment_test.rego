package load_fragment_test

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

test_receipts_are_required if {
	strict := object.union(fragment, {"required_receipts": ["TTL:root", "ledger"]})
	"missing receipt from ledger" in errors({}, [strict])
	not answer({"receipts": [{"issuer": "ledger", "ttl_subjects": []}]}, [strict]).allowed
	answer({"receipts": [{"issuer": "ledger", "ttl_subjects": ["root"]}]}, [strict]).allowed
}

test_parameters_are_returned if {
	answer({}, [object.union(fragment, {"parameters": {"a": 1}}), fragment]).parameters == [{"a": 1}]
}

text := {
	"svn": "2",
	"framework_version": "0.5.0",
	"containers": [{"layers": ["x"]}],
	"external_processes": [{"command": ["ls"]}],
	"fragments": [{"issuer": "did:z", "feed": "more", "parameters": {"p": 1}}],
}

with_text(change, changed_text) := found if {
	found := framework.load_fragment with input as object.union(object.union(request, {"fragment_loaded": true}), change)
		with data.policy.framework_version as "0.5.0"
		with data.policy.fragments as [fragment]
		with data.ns as object.union(text, changed_text)
}

text_errors(change, changed_text) := found if {
	found := framework.errors with input as object.union(object.union(request, {"fragment_loaded": true, "rule": "load_fragment"}), change)
		with data.policy.framework_version as "0.5.0"
		with data.policy.fragments as [fragment]
		with data.ns as changed_text
}

test_what_is_included_is_stored if {
	answer := with_text({}, {})
	answer.allowed
	answer.add_module == false
	answer.metadata[0].value.feeds.app == [{"containers": [{"layers": ["x"]}]}]
	answer.metadata[1].value == {"issuer": "did:z", "feed": "more", "parameters": {"p": 1}}
}

test_the_text_must_reach_the_minimum_and_agree_with_the_header if {
	not with_text({}, {"svn": "1"}).allowed
	not with_text({"has_header_svn": true, "header_svn": 3}, {}).allowed
	with_text({"has_header_svn": true, "header_svn": 2}, {}).allowed
	"svn in header 3 does not match svn in fragment rego 2" in text_errors({"has_header_svn": true, "header_svn": 3}, text)
	"fragment svn and the specified minimum are different types" in text_errors({}, object.union(text, {"svn": "2.0.0"}))
}

test_a_text_without_versions_is_refused if {
	bare := {"containers": []}
	not with_text({}, {"framework_version": "9.0.0"}).allowed
	"missing fragment svn in either header or rego payload" in text_errors({}, bare)
	"fragment framework_version is missing. Current version: 0.5.0" in text_errors({}, bare)
}

test_objects_of_an_older_fragment_are_upgraded if {
	answer := with_text({}, {"framework_version": "0.4.1", "containers": [{"layers": ["x"]}]})
	answer.metadata[0].value.feeds.app == [{"containers": []}]
}

test_under_strict_only_fragments_that_are_included_set_parameters if {
	count(strictly(["containers"]).metadata) == 1
	count(strictly(["containers", "fragments"]).metadata) == 2
}

strictly(includes) := found if {
	found := framework.load_fragment with input as object.union(request, {"fragment_loaded": true})
		with data.policy.framework_version as "0.5.0"
		with data.policy.strict as true
		with data.policy.fragments as [object.union(fragment, {"includes": includes})]
		with data.ns as text
}
