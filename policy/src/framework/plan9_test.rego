package plan9_test

import data.fixtures
import data.framework

request(target) := {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+", "target": target}

own := sprintf("/run/gcs/c/%s/mounts/m7", [fixtures.id])

test_a_share_belongs_to_a_container_with_an_overlay if {
	framework.plan9_mount.allowed with input as request(own) with data.metadata.matches as {fixtures.id: []}
	not framework.plan9_mount.allowed with input as request(own) with data.metadata.matches as {"other": []}
	not framework.plan9_mount.allowed with input as request("/etc") with data.metadata.matches as {fixtures.id: []}
	not framework.plan9_mount.allowed with input as request(own)
		with data.metadata.matches as {fixtures.id: []}
		with data.metadata.p9mounts as {own: fixtures.id}
}

test_unmounting if {
	framework.plan9_unmount.allowed with input as {"unmountTarget": own} with data.metadata.p9mounts as {own: fixtures.id}
	not framework.plan9_unmount.allowed with input as {"unmountTarget": own}
}
