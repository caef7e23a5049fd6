# The network of the pod, for policies with casemate_version: an entry of their list `networks` must allow it. Each entry has rules
# {pattern, strategy} (`any`, `string`, `re2`) for addresses, routes (as "DESTINATION GATEWAY") and nameservers.
package framework

default guest_network := {"allowed": false}

guest_network := {"allowed": true} if {
	some network in data.policy.networks
	network_interface_fits(network)
	all_fit(network, "addresses", input.addresses)
	all_fit(network, "routes", asked_routes)
	all_fit(network, "nameservers", input.nameservers)
}

asked_routes := [concat(" ", [route.destination, route.gateway]) | some route in input.routes]

network_interface_fits(network) if not network.interface

network_interface_fits(network) if network.interface == input.interface

all_fit(network, kind, asked) if {
	every text in asked {
		some_rule_fits(object.get(network, kind, []), text)
	}
}

some_rule_fits(rules, text) if {
	some rule in rules
	network_text_fits(rule, text)
}

network_text_fits(rule, _) if rule.strategy == "any"

network_text_fits(rule, text) if {
	rule.strategy == "string"
	rule.pattern == text
}

network_text_fits(rule, text) if {
	rule.strategy == "re2"
	casemate_matches(rule.pattern, text)
}

some_network_allows(kind, asked) if {
	some network in data.policy.networks
	all_fit(network, kind, asked)
}

errors_of("guest_network") := guest_network_errors

guest_network_errors contains "invalid interface" if {
	count([network | some network in data.policy.networks; network_interface_fits(network)]) == 0
}

guest_network_errors contains "invalid addresses" if not some_network_allows("addresses", input.addresses)

guest_network_errors contains "invalid routes" if not some_network_allows("routes", asked_routes)

guest_network_errors contains "invalid nameservers" if not some_network_allows("nameservers", input.nameservers)
