#!/bin/bash
# fuzz.sh [TARGET] [SECONDS]: runs one fuzz target of any fuzz crate, or each of them, for SECONDS (60).
#
# libFuzzer on the stable toolchain: LLVM's SanitizerCoverage pass works there, AddressSanitizer would need nightly.
# New inputs are kept in the cache and tried first in the next run; crashing inputs are in crashes/.
# To update the small corpus in the tree: BIN -merge=1 CRATE/corpus/TARGET CACHE/corpus/TARGET.
set -eu -o pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/casemate/fuzz
wanted=${1:-}
seconds=${2:-60}

crates=()
for crate in */fuzz */*/fuzz; do
    if [[ -z $wanted || -e $crate/targets/$wanted.rs ]]; then crates+=("$crate"); fi
done
if ((${#crates[@]} == 0)); then
    echo "unknown fuzz target $wanted; known targets:" */fuzz/targets/*.rs */*/fuzz/targets/*.rs >&2
    exit 2
fi
if ! command -v c++ >/dev/null; then
    echo '==> installing a C++ compiler for libFuzzer'
    apt-get install -y --no-install-recommends g++
fi
export RUSTFLAGS='--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares'
for crate in "${crates[@]}"; do
    echo "==> building the targets of $crate"
    (cd "$crate" && ${CARGO:-cargo} build --release --target x86_64-unknown-linux-gnu --target-dir "$cache/target")
done
for crate in "${crates[@]}"; do
    for file in "$crate"/targets/"${wanted:-*}".rs; do
        target=$(basename "$file" .rs)
        mkdir -p "$cache/corpus/$target" "$cache/crashes"
        echo "==> fuzzing $target for $seconds s"
        "$cache/target/x86_64-unknown-linux-gnu/release/$target" -max_total_time="$seconds" -max_len=4096 -timeout=20 \
            -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$cache/crashes/$target-" "$cache/corpus/$target" "$crate/corpus/$target"
    done
done
