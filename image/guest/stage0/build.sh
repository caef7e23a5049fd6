#!/usr/bin/env bash
# build.sh OUTPUT: builds stage0's program as one flat file, as it is launched. OUTPUT.elf is the same with symbols.
set -euo pipefail
output=$(realpath -m "$1")
cd "$(dirname "$0")/../../.."
cargo build --quiet --profile guest -p stage0 --features program --target x86_64-unknown-none
cp "${CARGO_TARGET_DIR:-target}/x86_64-unknown-none/guest/stage0" "$output.elf"
objcopy -O binary "$output.elf" "$output"
