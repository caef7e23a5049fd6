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

accepts(allowed, asked) if {
	framework.user_fits({"umask": "0022", "user_idname": allowed, "group_idnames": []}) with input as {"user": asked, "groups": [], "umask": "0022"}
}

test_strategies if {
	asked := {"id": "5", "name": "svc-a"}
	accepts({"pattern": "", "strategy": "any"}, asked)
	accepts({"pattern": "5", "strategy": "id"}, asked)
	accepts({"pattern": "svc-a", "strategy": "name"}, asked)
	accepts({"pattern": "svc-.", "strategy": "re2"}, asked)
	not accepts({"pattern": "svc", "strategy": "re2"}, asked)
	not accepts({"pattern": "svc-a", "strategy": "id"}, asked)
	not accepts({"pattern": "5", "strategy": "bogus"}, asked)
}
