# Points that a flag of the policy decides.
package framework

default get_properties := {"allowed": false}

get_properties := {"allowed": true} if data.policy.allow_properties_access

default dump_stacks := {"allowed": false}

dump_stacks := {"allowed": true} if data.policy.allow_dump_stacks

default runtime_logging := {"allowed": false}

runtime_logging := {"allowed": true} if data.policy.allow_runtime_logging

default host_network := {"allowed": false}

host_network := {"allowed": true} if data.policy.allow_host_network
