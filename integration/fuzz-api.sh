#!/usr/bin/env bash
# fuzz-api.sh CASEMATE [EXAMPLES]: asks the token service whatever its own description allows and much that it does not, with schemathesis
# (PyPI), and fails if an answer is a server error. The service has a database, a key and an administrator of its own in a temporary
# directory; EXAMPLES (60) is the number of requests for each operation and kind.
set -euo pipefail
casemate=$(realpath "$1")
examples=${2:-60}
package=schemathesis==4.32.5
environment=${XDG_CACHE_HOME:-$HOME/.cache}/casemate/schemathesis

if ! "$environment/bin/st" --version 2>/dev/null | grep -q "${package#*==}"; then
  echo "==> pip install $package"
  python3 -m venv "$environment"
  "$environment/bin/python3" -m pip install --quiet --disable-pip-version-check "$package"
fi

directory=$(mktemp -d)
service=
finish() { [[ -z $service ]] || kill "$service" 2>/dev/null || true; rm -rf "$directory"; }
trap finish EXIT
cd "$directory"

database=sqlite:$directory/registry.db
admin() { "$casemate" registry admin --database "$database" "$@"; }
admin key new --key key.pem --certificate certificate.pem >/dev/null
admin user add root --administrator --no-password >/dev/null
admin user add ann --no-password >/dev/null
admin project add group/project --public >/dev/null
admin member set group/project ann developer >/dev/null
admin rule add group/project 'group/project/*' --push owner >/dev/null
admin tag-rule add group/project 'v.*' --push owner --delete owner >/dev/null
token=$(admin token personal root fuzz --read --write --api 2>/dev/null)

cat >service.toml <<EOF
listen = "127.0.0.1:0"
issuer = "fuzz"
services = ["registry"]
database = "$database"
failed_logins = { per_address = 1000000000, per_account = 1000000000, window = 180 }
[[keys]]
key = "key.pem"
certificate = "certificate.pem"
EOF
"$casemate" registry serve --config service.toml >address &
service=$!
until [[ -s address ]]; do
  kill -0 "$service" || { echo "the service does not start" >&2; exit 1; }
  sleep 0.1
done
address=$(sed 's/.* //' address)

# What exists: without these most requests end at the first 404.
cat >schemathesis.toml <<EOF
[parameters]
"path.id" = 1
"path.user_id" = 2
"path.protection_rule_id" = 1
"query.service" = "registry"
EOF
run() { "$environment/bin/st" run "http://$address/openapi.json" --max-examples "$examples" --checks not_a_server_error "$@"; }
echo "==> as an administrator, nothing deleted"
run --header "PRIVATE-TOKEN: $token" --exclude-method DELETE
echo "==> as an administrator, whatever exists or not"
rm schemathesis.toml
run --header "PRIVATE-TOKEN: $token"
echo "==> as nobody"
run
kill -0 "$service" || { echo "the service has ended" >&2; exit 1; }
