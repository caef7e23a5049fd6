package flags_test

import data.framework

test_undefined_means_no if {
	not framework.get_properties.allowed
	not framework.dump_stacks.allowed
	not framework.runtime_logging.allowed
	not framework.host_network.allowed
}

test_each_flag_opens_its_point if {
	framework.get_properties.allowed with data.policy.allow_properties_access as true
	framework.dump_stacks.allowed with data.policy.allow_dump_stacks as true
	framework.runtime_logging.allowed with data.policy.allow_runtime_logging as true
	framework.host_network.allowed with data.policy.allow_host_network as true
	not framework.host_network.allowed with data.policy.allow_dump_stacks as true
}
