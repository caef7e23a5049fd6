# Capability sets: equal to the policy's, or reduced to them.
package framework

capability_sets := ["bounding", "effective", "inheritable", "permitted", "ambient"]

# Policies older than the field `capabilities` do not have the flag.
dropping_capabilities if {
	semver.compare(policy_version, "0.2.2") >= 0
	data.policy.allow_capability_dropping
}

allowed_capabilities(container, _) := container.capabilities if container.capabilities != null

allowed_capabilities(container, privileged) := {
	"bounding": data.defaultPrivilegedCapabilities,
	"effective": data.defaultPrivilegedCapabilities,
	"inheritable": data.defaultPrivilegedCapabilities,
	"permitted": data.defaultPrivilegedCapabilities,
	"ambient": [],
} if {
	container.capabilities == null
	privileged
	container.allow_elevated
}

allowed_capabilities(container, privileged) := {
	"bounding": data.defaultUnprivilegedCapabilities,
	"effective": data.defaultUnprivilegedCapabilities,
	"inheritable": [],
	"permitted": data.defaultUnprivilegedCapabilities,
	"ambient": [],
} if {
	container.capabilities == null
	not runs_privileged(container, privileged)
}

runs_privileged(container, privileged) if {
	privileged
	container.allow_elevated
}

capabilities_fit(allowed, asked) if {
	every name in capability_sets {
		same_members(allowed[name], asked[name])
	}
}

same_members(some_list, other_list) if {
	count(some_list) == count(other_list)
	every member in some_list {
		member in other_list
	}
	every member in other_list {
		member in some_list
	}
}

kept_capabilities(_, _) := input.capabilities if not dropping_capabilities

kept_capabilities(containers, privileged) := kept if {
	dropping_capabilities
	largest := largest_capabilities(containers, privileged)
	count(largest) == 1
	some kept in largest
}

# The largest of the capability sets that the containers keep of the request.
largest_capabilities(containers, privileged) := {sets | some sets in subsets; capabilities_count(sets) == most} if {
	subsets := [sets |
		some container in containers
		allowed := allowed_capabilities(container, privileged)
		sets := {name: members |
			some name in capability_sets
			members := {member | some member in input.capabilities[name]; member in allowed[name]}
		}
	]
	most := max([capabilities_count(sets) | some sets in subsets])
}

capabilities_count(sets) := sum([count(members) | some members in sets])
