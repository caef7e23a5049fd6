# Trust lists: the ledgers whose receipts are accepted.
package framework

default load_transparency_trust_list := {"allowed": false}

load_transparency_trust_list := {"allowed": true, "allowed_ledgers": allowed_ledgers} if {
	count(allowed_ledgers) > 0
}

default policy_trust_lists := []

policy_trust_lists := data.policy.transparency_trust_lists

fragment_trust_lists := [list |
	some loaded in loaded_fragments
	some list in loaded.transparency_trust_lists
]

trust_list_candidates := [list |
	some list in array.concat(policy_trust_lists, fragment_trust_lists)
	list.issuer == input.issuer
	list.subject == input.subject
	svn_reaches(input.svn, list.minimum_svn)
]

listed_ledgers := {ledger |
	some list in trust_list_candidates
	some ledger in list.allowed_ledgers
}

allowed_ledgers := input.ledgers if "*" in listed_ledgers

allowed_ledgers := [ledger | some ledger in input.ledgers; ledger in listed_ledgers] if not "*" in listed_ledgers

errors_of("load_transparency_trust_list") := load_transparency_trust_list_errors

load_transparency_trust_list_errors contains "no TTL candidate matches the provided TTL's issuer, subject and svn" if {
	count(trust_list_candidates) == 0
}

load_transparency_trust_list_errors contains "The provided TTL does not contain any ledgers it is allowed to load" if {
	count(trust_list_candidates) > 0
	count(allowed_ledgers) == 0
}
