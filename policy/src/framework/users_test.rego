package users_test

import data.fixtures
import data.framework

fits(change) if {
	user := fixtures.container.user
	framework.user_fits(user) with input as object.union(fixtures.create, change)
}

test_user_groups_and_umask if {
	fits({})
	fits({"groups": []})
	not fits({"user": {"id": "0", "name": "user"}})
	not fits({"groups": [{"id": "100", "name": "users"}, {"id": "0", "name": "root"}]})
	not fits({"umask": "0000"})
}

test_strategies if {
	asked := {"id": "5", "name": "svc-a"}
	framework.id_name_fits({"pattern": "", "strategy": "any"}, asked)
	framework.id_name_fits({"pattern": "5", "strategy": "id"}, asked)
	framework.id_name_fits({"pattern": "svc-a", "strategy": "name"}, asked)
	framework.id_name_fits({"pattern": "svc-.", "strategy": "re2"}, asked)
	not framework.id_name_fits({"pattern": "svc", "strategy": "re2"}, asked)
	not framework.id_name_fits({"pattern": "svc-a", "strategy": "id"}, asked)
	not framework.id_name_fits({"pattern": "5", "strategy": "bogus"}, asked)
}
