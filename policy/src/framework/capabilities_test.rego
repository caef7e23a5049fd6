package capabilities_test

import data.fixtures
import data.framework

test_order_does_not_count_but_number_does if {
	framework.same_members(["a", "b"], ["b", "a"])
	not framework.same_members(["a"], ["a", "a"])
	not framework.same_members(["a", "b"], ["a", "c"])
}

without_sets := object.union(fixtures.container, {"capabilities": null})

test_defaults_follow_privilege if {
	elevated := object.union(without_sets, {"allow_elevated": true})
	count(framework.allowed_capabilities(elevated, true).bounding) > count(framework.allowed_capabilities(elevated, false).bounding)
	framework.allowed_capabilities(without_sets, true).inheritable == []
}

test_dropping_keeps_the_common_part if {
	asked := object.union(fixtures.unprivileged, {"ambient": ["CAP_SYS_ADMIN"]})
	kept := framework.kept_capabilities([fixtures.container], false) with input as {"capabilities": asked}
		with data.policy.allow_capability_dropping as true
		with data.policy.framework_version as "0.5.0"
	kept.ambient == set()
	kept.bounding == {"CAP_CHOWN"}
}

test_old_policies_cannot_drop if {
	not framework.dropping_capabilities with data.policy.allow_capability_dropping as true
		with data.policy.framework_version as "0.2.1"
}
