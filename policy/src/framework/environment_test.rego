package environment_test

import data.fixtures
import data.framework

rules := fixtures.container.env_rules

test_text_pattern_and_split_rules if {
	framework.env_known(rules, "PATH=/bin")
	framework.env_known(rules, "MODE=b")
	framework.env_known(rules, "PORT_WEB=")
	not framework.env_known(rules, "PORT_WEB")
	not framework.env_known(rules, "PORT_WEB=x")
	not framework.env_known(rules, "MODE=ab")
}

test_the_value_begins_at_the_first_equals_sign if {
	rule := {"name": "A", "name_strategy": "string", "value": "b=c", "value_strategy": "string"}
	framework.env_known([rule], "A=b=c")
}

test_an_invalid_pattern_never_matches if {
	not framework.env_known([{"pattern": "A=(", "strategy": "re2"}], "A=(")
	not framework.env_known([{"pattern": "A", "strategy": "equal"}], "A")
	not framework.env_known([{"pattern": null, "strategy": "string"}], "A")
}

test_dropping_keeps_accepted_variables if {
	kept := framework.kept_env([fixtures.container]) with input as {"envList": ["X=1", "MODE=a", "PATH=/bin", "MODE=a"]}
		with data.policy.allow_environment_variable_dropping as true
	kept == ["MODE=a", "PATH=/bin"]
}

test_two_largest_subsets_are_undecidable if {
	left := {"env_rules": [{"pattern": "A=1", "strategy": "string"}]}
	right := {"env_rules": [{"pattern": "B=1", "strategy": "string"}]}
	not framework.kept_env([left, right]) with input as {"envList": ["A=1", "B=1"]}
		with data.policy.allow_environment_variable_dropping as true
}

test_without_dropping_the_list_stays if {
	kept := framework.kept_env([fixtures.container]) with input as {"envList": ["X=1", "X=1"]}
	kept == ["X=1", "X=1"]
}
