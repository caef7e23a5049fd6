# The reason of a denial: all errors of the denied point, and the objects that were considered.
package framework

reason := {"errors": errors, "error_objects": error_objects}

# Each point defines its errors in `errors_of(point)`; only those of the denied point are evaluated.
errors contains error if some error in errors_of(input.rule)

default error_objects := null

error_objects := matching if input.rule == "create_container"

error_objects := [process | some container in matching; some process in container.exec_processes] if {
	input.rule == "exec_in_container"
}

error_objects := candidate_processes if input.rule == "exec_external"

error_objects := candidate_fragments if input.rule == "load_fragment"
