# Limits of a container's cgroup, for policies with casemate_version. A container lists them in `limits`, by the kernel's name of each,
# as {min, max}; a bound that is missing is none.
package framework

listed_limits(container) := object.get(container, "limits", {})

# `null` is no limit, which is above every number.
limit_within(bounds, value) if {
	value == null
	object.get(bounds, "max", null) == null
}

limit_within(bounds, value) if {
	is_number(value)
	value >= object.get(bounds, "min", 0)
	below_max(object.get(bounds, "max", null), value)
}

below_max(most, _) if most == null

below_max(most, value) if {
	is_number(most)
	value <= most
}

# What the kernel sets where a request says nothing; every other limit is then none (cgroup-v2.rst).
kernel_defaults := {"memory.low": 0, "cpu.weight": 100}

# A container is created within all listed limits.
created_within_limits(container) if {
	every name, bounds in listed_limits(container) {
		limit_within(bounds, object.get(input.limits, name, object.get(kernel_defaults, name, null)))
	}
}

# Only listed limits are changed.
updated_within_limits(container) if {
	every name, value in input.limits {
		limit_within(listed_limits(container)[name], value)
	}
}
