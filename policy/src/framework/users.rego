# Who a process runs as.
package framework

# Those whose umask is the one asked for, whose user fits, and one of whose groups each group fits. Strategies: `any`; `id` and
# `name` (equal); `re2` (the name, matched from start to end).
users_fitting(containers) := casemate_users_fitting(containers, input.user, input.groups, input.umask)

user_fits(user) if count(users_fitting([{"user": user}])) > 0

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
