package containers_test

import data.fixtures
import data.framework

old_container := object.remove(fixtures.container, ["user", "capabilities", "seccomp_profile_sha256", "no_new_privileges"])

candidates(version, container) := found if {
	found := framework.candidate_containers with data.policy.framework_version as version
		with data.policy.containers as [container]
}

test_containers_of_the_current_version_are_unchanged if candidates("0.5.0", {"layers": []}) == [{"layers": []}]

test_an_older_container_gets_the_defaults_of_its_version if {
	some upgraded in candidates("0.1.0", old_container)
	upgraded.no_new_privileges == false
	upgraded.user.umask == "0022"
	upgraded.capabilities == null
	upgraded.seccomp_profile_sha256 == ""
	upgraded.signals == [9, 9, 15]
}

test_a_container_without_a_field_of_its_version_is_dropped if {
	candidates("0.2.0", old_container) == []
	candidates("0.4.1", object.remove(fixtures.container, ["user"])) == []
}

test_an_unusable_version_allows_nothing if {
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

test_the_number_of_candidates_is_limited if {
	many := [fixtures.container | some _ in numbers.range(1, 5000)]
	count(framework.bounded(many)) == 1
	count(framework.bounded([fixtures.container, fixtures.container])) == 2
}
