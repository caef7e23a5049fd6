package mounts_test

import data.fixtures
import data.framework

mount := fixtures.create.mounts[0]

fits(change) if {
	constraint := fixtures.container.mounts[0]
	changed := object.union(mount, change)
	framework.mount_fits(constraint, changed) with input as fixtures.create
}

test_every_field_counts if {
	fits({})
	not fits({"destination": "/other"})
	not fits({"type": "none"})
	not fits({"options": ["rbind"]})
	not fits({"options": ["rbind", "rw"]})
	not fits({"source": "/sandbox/data/more"})
	not fits({"source": "sandbox:///other"})
}

test_the_defaults_are_for_everybody if {
	proc := {"destination": "/proc", "options": ["nosuid", "noexec", "nodev"], "source": "proc", "type": "proc"}
	framework.mounts_fit(fixtures.container) with input as {"mounts": [proc]}
	not framework.mounts_fit(fixtures.container) with input as {"mounts": [object.union(proc, {"destination": "/"})]}
}

test_privileged_mounts_need_an_elevated_container if {
	sys := {"destination": "/sys", "options": ["nosuid", "noexec", "nodev", "rw"], "source": "sysfs", "type": "sysfs"}
	asked := {"mounts": [sys], "isSandboxContainer": false}
	not framework.mounts_fit(fixtures.container) with input as asked
	framework.mounts_fit(object.union(fixtures.container, {"allow_elevated": true})) with input as asked
	framework.mounts_fit(fixtures.container) with input as object.union(asked, {"isSandboxContainer": true})
}

test_shares_belong_to_their_container if {
	constraint := {"destination": "/s", "options": ["rbind"], "source": "plan9://", "type": "bind"}
	share := {"destination": "/s", "options": ["rbind"], "source": "/run/gcs/c/x/mounts/m1", "type": "bind"}
	framework.mount_fits(constraint, share) with input as fixtures.create
		with data.metadata.p9mounts as {"/run/gcs/c/x/mounts/m1": fixtures.id}
	not framework.mount_fits(constraint, share) with input as fixtures.create
		with data.metadata.p9mounts as {"/run/gcs/c/x/mounts/m1": "other"}
}
