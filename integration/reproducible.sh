#!/usr/bin/env bash
# `reproducible.sh CASEMATE PROGRAMS STAGE0 IMAGE`: builds the guest's programs again, from a copy of this checkout in another directory
# and without anything that was built before, then the image, and compares both with the given ones byte by byte.
set -euo pipefail
casemate=$(realpath "$1") programs=$(realpath "$2") stage0=$(realpath "$3") image=$(realpath "$4")
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/casemate-reproducible-XXXXXX")
trap 'rm -rf "$work"' EXIT
copy=$work/a/copy/elsewhere
mkdir -p "$copy"
# What git has or would take, as it is now.
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"

echo "==> building the guest's programs in $copy"
env -u CARGO_TARGET_DIR make --no-print-directory -C "$copy" guest-programs GUEST_PROFILE="$(basename "$programs")"
again=$copy/target/x86_64-unknown-linux-gnu/$(basename "$programs")
"$casemate" image build --programs "$again" --stage0 "$copy/target/stage0" --output "$work/image" >/dev/null

different=0
compare() { cmp "$1" "$2" && echo "same bytes  $(basename "$1")" || different=1; }
for program in casemate-agent casemate-launcher casemate-puller casemate-pause; do compare "$programs/$program" "$again/$program"; done
compare "$stage0" "$copy/target/stage0"
# The manifest has the digest of every input, and the launch digests.
for file in vmlinux initramfs.cpio stage0 manifest.json; do compare "$image/$file" "$work/image/$file"; done
exit "$different"
