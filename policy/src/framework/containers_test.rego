package containers_test

import data.fixtures
import data.framework

old_container := object.remove(fixtures.container, ["user", "capabilities", "seccomp_profile_sha256", "no_new_privileges"])

candidates(version, container) := found if {
	found := framework.candidate_containers with data.policy.framework_version as version
		with data.policy.containers as [container]
}

test_the_current_version_is_taken_as_it_is if candidates("0.5.0", {"layers": []}) == [{"layers": []}]

test_an_older_container_gets_the_defaults_of_its_time if {
	some upgraded in candidates("0.1.0", old_container)
	upgraded.no_new_privileges == false
	upgraded.user.umask == "0022"
	upgraded.capabilities == null
	upgraded.seccomp_profile_sha256 == ""
	upgraded.signals == [9, 9, 15]
}

test_a_missing_field_of_its_time_makes_it_vanish if {
	candidates("0.2.0", old_container) == []
	candidates("0.4.1", object.remove(fixtures.container, ["user"])) == []
}

test_versions_that_say_nothing_allow_nothing if {
	candidates("1.0.0", fixtures.container) == []
	candidates("five", fixtures.container) == []
}

test_platform_rules_make_a_copy_each if {
	found := framework.candidate_containers with data.policy.framework_version as "0.5.0"
		with data.policy.containers as [fixtures.container]
		with data.policy.platform_rules as [{"env_rules": [{"pattern": "A=1", "strategy": "string"}]}, {}]
	count(found) == 2
	count(found[0].env_rules) == count(found[1].env_rules) + 1
}

test_counting_is_bounded if {
	many := [fixtures.container | some _ in numbers.range(1, 5000)]
	count(framework.bounded(many)) == 1
	count(framework.bounded([fixtures.container, fixtures.container])) == 2
}
