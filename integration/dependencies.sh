#!/usr/bin/env bash
# Checks third-party dependencies: licences, bans and sources, known vulnerabilities, and unused dependencies.
# A check whose tool or database is missing is reported on a line that begins with `skipped: `.
set -eu -o pipefail
cd "$(dirname "$0")/.."

advisories() { compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-db*/*" >/dev/null; }

if command -v cargo-deny >/dev/null; then
    cargo deny --log-level error check bans licenses sources
    if advisories; then
        cargo deny --log-level error check --disable-fetch advisories
    else
        echo 'skipped: advisories: no database (cargo deny fetch)'
    fi
else
    echo 'skipped: licences, bans, sources and advisories: cargo-deny is not installed (cargo install cargo-deny)'
fi
if command -v cargo-machete >/dev/null; then
    cargo machete
else
    echo 'skipped: unused dependencies: cargo-machete is not installed (cargo install cargo-machete)'
fi
