#!/usr/bin/env bash
# `peers.sh DIRECTORY`: installs programs of others that tests compare with, into a Python environment of their own. The package index
# is pip's. Without one the tests are skipped, so nothing here is an error.
set -euo pipefail
directory=$1
package=sev-snp-measure==0.0.13

skip() { echo "set-up: without $package ($1): the test that compares launch digests with its own is skipped"; exit 0; }

python=$directory/bin/python3
installed() { "$python" -c 'import importlib.metadata as m; print("sev-snp-measure==" + m.version("sev-snp-measure"))' 2>/dev/null; }
[[ $(installed || true) != "$package" ]] || exit 0
log=$(python3 -m venv "$directory" 2>&1) || skip "python3 -m venv: ${log##*$'\n'}"
# Its dependencies sign ID blocks, which no test asks it for.
echo "set-up: pip install $package into $directory"
log=$("$python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 15 --no-deps "$package" 2>&1) || skip "${log##*$'\n'}"
