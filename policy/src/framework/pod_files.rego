# Files of the pod, for policies with casemate_version: the policy's object `pod_lines` has lists of rules {pattern, strategy} (`any`,
# `string`, `re2`) for hosts, hostname and resolv_conf. Each line must fit one, unless it is empty or a comment.
package framework

default pod_files := {"allowed": false}

pod_files := {"allowed": true} if {
	pod_file_fits("hosts")
	pod_file_fits("hostname")
	pod_file_fits("resolv_conf")
}

pod_file_fits(file) if {
	every line in input[file] {
		pod_line_fits(file, line)
	}
}

pod_line_fits(_, line) if trim_space(line) == ""

pod_line_fits(_, line) if startswith(line, "#")

pod_line_fits(file, line) if some_rule_fits(data.policy.pod_lines[file], line)

errors_of("pod_files") := pod_files_errors

pod_files_errors contains sprintf("a line of %s is not listed", [file]) if {
	some file in ["hosts", "hostname", "resolv_conf"]
	not pod_file_fits(file)
}
