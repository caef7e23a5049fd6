package attestation_report_test

import data.fixtures
import data.framework

allowed(listed, started) if {
	framework.attestation_report.allowed with input as {"containerID": fixtures.id}
		with data.metadata.matches as {fixtures.id: [object.union(fixtures.container, listed)]}
		with data.metadata.started as started
}

test_a_running_container_that_may_ask if {
	allowed({"allow_reports": true}, {fixtures.id: {"privileged": false}})
	not allowed({"allow_reports": true}, {})
	not allowed({"allow_reports": false}, {fixtures.id: {"privileged": false}})
	not allowed({}, {fixtures.id: {"privileged": false}})
}
