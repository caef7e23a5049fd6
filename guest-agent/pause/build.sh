#!/usr/bin/env bash
# build.sh OUTPUT: builds the pause program, a static executable of a few KiB.
set -euo pipefail
output=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
cargo build --quiet --profile guest -p casemate-pause --features program --target x86_64-unknown-none
mkdir -p "$(dirname "$output")"
cp "${CARGO_TARGET_DIR:-target}/x86_64-unknown-none/guest/casemate-pause" "$output"
