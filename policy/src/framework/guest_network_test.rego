package guest_network_test

import data.framework

network := {
	"interface": "eth0",
	"addresses": [{"pattern": "10[.]0[.]0[.][0-9]+/24", "strategy": "re2"}],
	"routes": [{"pattern": "0.0.0.0/0 10.0.0.1", "strategy": "string"}],
	"nameservers": [{"pattern": "", "strategy": "any"}],
}

request := {
	"interface": "eth0",
	"addresses": ["10.0.0.7/24"],
	"routes": [{"destination": "0.0.0.0/0", "gateway": "10.0.0.1"}],
	"nameservers": ["10.0.0.53"],
}

allowed(change) if {
	framework.guest_network.allowed with input as object.union(request, change)
		with data.policy.networks as [network]
}

test_everything_is_listed if {
	allowed({})
	allowed({"routes": []})
	not allowed({"interface": "eth1"})
	not allowed({"addresses": ["10.0.1.7/24"]})
	not allowed({"routes": [{"destination": "0.0.0.0/0", "gateway": "10.0.0.2"}]})
}

test_a_policy_without_networks_allows_none if {
	not framework.guest_network.allowed with input as request
}

test_the_reason_names_the_part if {
	found := framework.errors with input as object.union(request, {"addresses": ["1.1.1.1/8"], "rule": "guest_network"})
		with data.policy.framework_version as "0.5.0"
		with data.policy.networks as [network]
	found == {"invalid addresses"}
}
