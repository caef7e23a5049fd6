# User and groups of a process.
package framework

# Containers with the requested umask, whose user rule accepts the user, and whose group rules accept each group. Strategies: `any`; `id` and
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
