# Environment variables: which may be there, which must be there, which are dropped.
package framework

# The one largest subset of the request that some of the objects (containers or processes) can agree on.
kept_env(_) := input.envList if not data.policy.allow_environment_variable_dropping

kept_env(objects) := kept if {
	data.policy.allow_environment_variable_dropping
	subsets := [subset |
		some object in objects
		subset := {entry |
			some entry in input.envList
			env_known(object.env_rules, entry)
		}
	]
	most := max([count(subset) | some subset in subsets])
	largest := {subset | some subset in subsets; count(subset) == most}
	count(largest) == 1
	some subset in largest
	kept := [entry | some entry in subset]
}

env_fits(rules, entries) if {
	env_complete(rules, entries)
	every entry in entries {
		env_known(rules, entry)
	}
}

# Every required variable is there.
env_complete(rules, entries) if {
	every rule in rules {
		env_rule_satisfied(rule, entries)
	}
}

env_rule_satisfied(rule, _) if not rule.required

env_rule_satisfied(rule, entries) if {
	rule.required
	some entry in entries
	env_rule_accepts(rule, entry)
}

env_known(rules, entry) if {
	some rule in rules
	env_rule_accepts(rule, entry)
}

env_rule_accepts(rule, entry) if env_text_accepts(rule.strategy, rule.pattern, entry)

env_rule_accepts(rule, entry) if {
	position := indexof(entry, "=")
	position >= 0
	env_text_accepts(rule.name_strategy, rule.name, substring(entry, 0, position))
	env_text_accepts(rule.value_strategy, rule.value, substring(entry, position + 1, -1))
}

env_text_accepts("string", pattern, text) if pattern == text

env_text_accepts("re2", pattern, text) if casemate_matches(pattern, text)

# Names of the variables that none of the objects knows, in the order of the request.
unknown_env(objects) := [split(entry, "=")[0] |
	some entry in input.envList
	not env_known_to_some(objects, entry)
]

env_known_to_some(objects, entry) if {
	some object in objects
	env_known(object.env_rules, entry)
}
