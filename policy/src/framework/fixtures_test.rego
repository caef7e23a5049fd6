# A container and requests that fit it; tests change one field at a time.
package fixtures

id := "00000000000000000000000000000000000000000000000000000000000000c1"

container := {
	"command": ["app", "--serve"],
	"env_rules": [
		{"pattern": "PATH=/bin", "strategy": "string", "required": true},
		{"pattern": "MODE=(a|b)", "strategy": "re2", "required": false},
		{"name": "PORT_.+", "name_strategy": "re2", "value": "[0-9]*", "value_strategy": "re2", "required": false},
	],
	"layers": ["bottom", "top"],
	"mounts": [{"destination": "/data", "options": ["rbind", "ro"], "source": "sandbox:///data", "type": "bind"}],
	"exec_processes": [{"command": ["ctl", "ping"], "signals": [15]}],
	"signals": [9],
	"user": {
		"user_idname": {"pattern": "1000", "strategy": "id"},
		"group_idnames": [{"pattern": "users", "strategy": "name"}, {"pattern": "svc-.*", "strategy": "re2"}],
		"umask": "0022",
	},
	"capabilities": unprivileged,
	"seccomp_profile_sha256": "",
	"allow_elevated": false,
	"working_dir": "/",
	"allow_stdio_access": true,
	"no_new_privileges": true,
}

unprivileged := {
	"bounding": ["CAP_CHOWN"],
	"effective": ["CAP_CHOWN"],
	"inheritable": [],
	"permitted": ["CAP_CHOWN"],
	"ambient": [],
}

create := {
	"containerID": id,
	"argList": ["app", "--serve"],
	"envList": ["PATH=/bin", "MODE=a", "PORT_WEB=80"],
	"workingDir": "/",
	"sandboxDir": "/sandbox",
	"hugePagesDir": "/huge",
	"mounts": [{"destination": "/data", "options": ["ro", "rbind"], "source": "/sandbox/data", "type": "bind"}],
	"devices": [],
	"privileged": false,
	"noNewPrivileges": true,
	"user": {"id": "1000", "name": "user"},
	"groups": [{"id": "100", "name": "users"}, {"id": "7", "name": "svc-web"}],
	"umask": "0022",
	"capabilities": unprivileged,
	"seccompProfileSHA256": "",
	"isSandboxContainer": false,
}

exec := {
	"containerID": id,
	"argList": ["ctl", "ping"],
	"envList": ["PATH=/bin"],
	"workingDir": "/",
	"noNewPrivileges": true,
	"user": {"id": "1000", "name": "user"},
	"groups": [],
	"umask": "0022",
	"capabilities": unprivileged,
}
