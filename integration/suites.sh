#!/usr/bin/env bash
# Runs the suites of `make test` one after another and closes with what ran, what was skipped and why, and each suite's time.
# usage: suites.sh
set -uo pipefail
cd "$(dirname "$0")/.."
programs=target/x86_64-unknown-linux-gnu/release
logs=target/suites
mkdir -p "$logs" && rm -f "$logs"/*
passed=0 failed=0 skipped=0 rows=()

# suite NAME COMMAND…: runs it, shows its output, adds up its `N passed` / `N failed` lines and keeps its skip reasons.
suite() {
    local name=$1 began=$SECONDS log=$logs/$1.log status p f s
    shift
    printf '\n==> suite %s\n' "$name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    p=$(sum "$log" passed) f=$(sum "$log" failed) s=$(grep -ciE '^skipped: ' "$log")
    # A suite that ends badly without a failed test of its own (it did not build, it was cut off) has failed once.
    [ "$status" -ne 0 ] && [ "$f" -eq 0 ] && f=1
    [ "$status" -eq 0 ] && [ "$p" -eq 0 ] && { echo "suite $name ran nothing"; f=1; }
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    rows+=("$(printf '%-24s %7d %7d %7d %6d s' "$name" "$p" "$f" "$s" $((SECONDS - began)))")
}

sum() {
    grep -oE "(^|[ ;])[0-9]+ $2" "$1" | grep -oE '[0-9]+' | awk '{n += $1} END {print n + 0}'
}

vectors() {
    if [ -f "../shared/vectors/$1" ]; then echo "../shared/vectors/$1"; else echo "$2"; fi
}

unit() {
    cargo test --release --workspace --quiet -- --show-output 2>&1 | grep -vE '^(running 0 tests|)$' | grep -vE '^test result: ok\. 0 passed'
}

suite unit unit
suite conformance-layers "$programs/casemate" conformance layers "$(vectors layers/layers.json image/layer/vectors/layers.json)"
suite stories-bookworm "$programs/testbed" run --suite bookworm
suite stories-trixie "$programs/testbed" run --suite trixie

printf '\n%-24s %7s %7s %7s %8s\n' suite passed failed skipped time
printf '%s\n' "${rows[@]}"
if [ "$skipped" -gt 0 ]; then
    printf '\nskipped:\n'
    grep -hiE '^skipped: ' "$logs"/*.log | sed 's/^/  /' | sort | uniq
fi
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
