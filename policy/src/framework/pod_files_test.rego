package pod_files_test

import data.framework

listed := {
	"hosts": [{"pattern": "[0-9a-f.:]+[\\t ]+(localhost|web)", "strategy": "re2"}],
	"hostname": [{"pattern": "web", "strategy": "string"}],
	"resolv_conf": [{"pattern": "", "strategy": "any"}],
}

request := {
	"sandboxID": "c",
	"hosts": ["# written by the kubelet", "127.0.0.1\tlocalhost", "", "10.0.0.7 web"],
	"hostname": ["web"],
	"resolv_conf": ["nameserver 10.0.0.53", "search corp"],
	"shm_bytes": 67108864,
}

allowed(change) if {
	framework.pod_files.allowed with input as object.union(request, change)
		with data.policy.pod_lines as listed
}

test_every_line_is_listed if {
	allowed({})
	allowed({"hosts": [], "shm_bytes": 0})
	not allowed({"hosts": ["127.0.0.1 localhost", "10.0.0.9 bank"]})
	not allowed({"hosts": [" # not a comment to every reader"]})
	not allowed({"hostname": ["web2"]})
}

test_a_policy_without_rules_allows_no_file if {
	not framework.pod_files.allowed with input as request
	framework.pod_files.allowed with input as object.union(request, {"hosts": ["# x"], "hostname": [], "resolv_conf": [""]})
}

test_the_reason_names_the_file if {
	found := framework.errors with input as object.union(request, {"hostname": ["x"], "rule": "pod_files"})
		with data.policy.framework_version as "0.5.0"
		with data.policy.pod_lines as listed
	found == {"a line of hostname is not listed"}
}
