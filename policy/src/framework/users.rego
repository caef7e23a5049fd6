# Who a process runs as.
package framework

user_fits(user) if {
	user.umask == input.umask
	id_name_fits(user.user_idname, input.user)
	every group in input.groups {
		some allowed in user.group_idnames
		id_name_fits(allowed, group)
	}
}

id_name_fits(allowed, _) if allowed.strategy == "any"

id_name_fits(allowed, asked) if {
	allowed.strategy == "id"
	allowed.pattern == asked.id
}

id_name_fits(allowed, asked) if {
	allowed.strategy == "name"
	allowed.pattern == asked.name
}

id_name_fits(allowed, asked) if {
	allowed.strategy == "re2"
	casemate_matches(allowed.pattern, asked.name)
}

no_new_privileges_fits(demanded) if demanded == false

no_new_privileges_fits(demanded) if {
	demanded == true
	input.noNewPrivileges
}

privileged_fits(_) if not input.privileged

privileged_fits(container) if {
	input.privileged
	container.allow_elevated
}
