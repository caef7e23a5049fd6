package fragments_test

import data.framework

fragment := {"issuer": "did:x", "feed": "app", "minimum_svn": "1", "includes": ["containers"]}

expected(input_document, issuers) := found if {
	found := framework.expected_fragments with input as input_document
		with data.policy.framework_version as "0.5.0"
		with data.policy.fragments as [fragment]
		with data.metadata.issuers as issuers
}

test_issuer_and_feed_select_the_entry if {
	expected({"issuer": "did:x", "feed": "app"}, {}) == [fragment]
	expected({"issuer": "did:x", "feed": "other"}, {}) == []
	expected({"issuer": "did:y", "feed": "app"}, {}) == []
}

test_loaded_fragments_name_further_fragments if {
	further := object.union(fragment, {"feed": "further"})
	issuers := {"did:x": {"feeds": {"app": [{"fragments": [further]}]}}}
	expected({"issuer": "did:x", "feed": "further"}, issuers) == [further]
}

included(version, includes) := found if {
	found := framework.included_objects({"includes": includes}) with input as {"namespace": "ns"}
		with data.ns as {
			"framework_version": version,
			"external_processes": [],
			"fragments": [fragment],
			"platform_rules": [{"env_rules": []}],
		}
}

test_only_what_the_entry_includes_is_taken if {
	included("0.5.0", ["fragments"]) == {"fragments": [fragment]}
	included("0.5.0", ["namespace"]) == {}
	included("0.5.0", ["platform_rules"]) == {"platform_rules": [{"env_rules": []}]}
}

test_an_older_fragment_has_no_platform_rules if {
	included("0.4.1", ["platform_rules"]) == {"platform_rules": []}
	included("0.4.1", ["fragments"]).fragments[0].required_receipts == []
}

test_a_newer_fragment_gives_nothing if {
	included("9.0.0", ["fragments"]) == {}
}

test_versions_compare_within_their_kind if {
	framework.svn_reaches("10", "9")
	framework.svn_reaches(2, "2")
	not framework.svn_reaches("1", "2")
	framework.svn_reaches("1.10.0", "1.9.0")
	not framework.svn_reaches("1.8.0", "1.9.0")
	not framework.svn_reaches("2", "1.0.0")
}
