# Reports of the guest for a container, for policies with casemate_version: the container must have `allow_reports`.
package framework

default attestation_report := {"allowed": false}

attestation_report := {"allowed": true} if {
	container_started
	reports_listed
}

reports_listed if {
	some container in matching
	container.allow_reports == true
}

errors_of("attestation_report") := attestation_report_errors | not_started_errors

attestation_report_errors contains "the container may not ask for reports" if not reports_listed
