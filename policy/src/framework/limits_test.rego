package limits_test

import data.framework

listed := {"limits": {"memory.max": {"min": 10, "max": 20}, "pids.max": {"min": 5}}}

created(limits) if framework.created_within_limits(listed) with input as {"limits": limits}

updated(limits) if framework.updated_within_limits(listed) with input as {"limits": limits}

test_a_container_is_created_within_all_of_them if {
	created({"memory.max": 10, "cpu.weight": 1})
	created({"memory.max": 20, "pids.max": 5})
	not created({"memory.max": 9})
	not created({"memory.max": 21})
	not created({"memory.max": null})
	not created({"pids.max": 5})
	not created({"memory.max": 10, "pids.max": 4})
}

test_what_is_left_out_has_the_kernels_default if {
	protected := {"limits": {"memory.low": {"min": 1}}}
	not framework.created_within_limits(protected) with input as {"limits": {}}
	weighed := {"limits": {"cpu.weight": {"min": 101}}}
	not framework.created_within_limits(weighed) with input as {"limits": {}}
	framework.created_within_limits(weighed) with input as {"limits": {"cpu.weight": 101}}
}

test_only_listed_ones_are_changed if {
	updated({"memory.max": 15})
	updated({"pids.max": null})
	updated({})
	not updated({"memory.max": null})
	not updated({"pids.max": 4})
	not updated({"cpu.weight": 100})
}

test_a_container_without_a_list_is_created_with_any if {
	framework.created_within_limits({}) with input as {"limits": {"memory.max": 1}}
	not framework.updated_within_limits({}) with input as {"limits": {"memory.max": 1}}
}
