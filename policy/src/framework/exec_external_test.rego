package exec_external_test

import data.framework

process := {
	"command": ["sh"],
	"env_rules": [{"pattern": "PATH=/bin", "strategy": "string", "required": true}],
	"working_dir": "/",
	"allow_stdio_access": true,
}

request := {"argList": ["sh"], "envList": ["PATH=/bin"], "workingDir": "/"}

allowed(change, processes) if {
	framework.exec_external.allowed with input as object.union(request, change)
		with data.policy.external_processes as processes
		with data.policy.framework_version as "0.5.0"
}

test_only_what_is_listed if {
	allowed({}, [process])
	not allowed({}, [])
	not allowed({"argList": ["sh", "-c", "id"]}, [process])
	not allowed({"workingDir": "/tmp"}, [process])
	not allowed({"envList": []}, [process])
}

test_processes_that_differ_in_stdio_are_undecidable if {
	not allowed({}, [process, object.union(process, {"allow_stdio_access": false})])
}
