package pull_image_test

import data.framework

digest := "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

pulls := [
	{"pattern": concat("", ["r.corp/team/app@", digest]), "strategy": "string"},
	{"pattern": "r[.]corp/base/[a-z]+@sha256:[0-9a-f]{64}", "strategy": "re2"},
]

allowed(image) if {
	framework.pull_image.allowed with input as {"image": image}
		with data.policy.pulls as pulls
}

test_what_is_listed_may_be_pulled if {
	allowed(concat("", ["r.corp/team/app@", digest]))
	allowed(concat("", ["r.corp/base/os@", digest]))
	not allowed(concat("", ["r.corp/team/app@", replace(digest, "a", "b")]))
	not allowed(concat("", ["evil/r.corp/base/os@", digest]))
	not allowed("r.corp/base/os")
}

test_a_policy_without_a_list_allows_none if {
	not framework.pull_image.allowed with input as {"image": "r.corp/base/os"}
}

test_the_reason_says_why if {
	found := framework.errors with input as {"image": "r.corp/base/os", "rule": "pull_image"}
		with data.policy.framework_version as "0.5.0"
		with data.policy.pulls as pulls
	found == {"image not listed"}
}
