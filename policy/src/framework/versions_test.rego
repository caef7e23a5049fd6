package versions_test

import data.framework

errors(policy) := found if {
	found := framework.errors with input as {"rule": "none"} with data.policy as policy
}

age(policy) := found if {
	found := framework.policy_age with data.policy as policy
}

test_age_is_relative_to_the_framework if {
	age({"framework_version": "0.4.1"}) < 0
	age({"framework_version": "0.5.0"}) == 0
	age({"framework_version": "0.5.1"}) > 0
	age({"framework_svn": "0.1.0"}) < 0
}

test_both_names_may_say_the_same if {
	age({"framework_version": "0.5.0", "framework_svn": "0.5.0"}) == 0
}

test_a_missing_or_newer_version_is_an_error if {
	errors({}) == {"framework_version is missing. Current version: 0.5.0"}
	errors({"framework_version": "0.6.0"}) == {"framework_version is ahead of the current version: 0.6.0 is greater than 0.5.0"}
	errors({"framework_version": "0.4.0"}) == set()
}
