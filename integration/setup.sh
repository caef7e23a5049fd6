#!/usr/bin/env bash
# Installs the packages and the Rust target that the host needs, and prints every change it makes. `setup.sh --check` only lists what is missing.
# A shell script, because cargo itself needs some of the packages.
set -euo pipefail

# The oldest QEMU with which emulated SVM and snapshots were tested; bookworm's own is 7.2.
qemu_major=10
backports=/etc/apt/sources.list.d/casemate-backports.sources
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# A program, or a file by its path, and the Debian package that contains it.
needs=(
  # cargo's linker and the libraries of static programs
  gcc:gcc ld:binutils
  /usr/lib/x86_64-linux-gnu/libc.a:libc6-dev
  /usr/lib/x86_64-linux-gnu/libseccomp.a:libseccomp-dev
  protoc:protobuf-compiler
  # the guest kernel
  make:make flex:flex bison:bison bc:bc cpio:cpio xz:xz-utils
  /usr/include/gelf.h:libelf-dev
  /usr/include/openssl/opensslv.h:libssl-dev
  # the test machines
  mmdebstrap:mmdebstrap mke2fs:e2fsprogs depmod:kmod zstd:zstd "$keyring:debian-archive-keyring"
  # independent checks of layer images
  veritysetup:cryptsetup-bin
  # Python environments of other tools (peers.sh)
  /usr/share/doc/python3-venv/copyright:python3-venv
  # registries, their logins and proxies, for tests of pulls; each test starts its own
  docker-registry:docker-registry skopeo:skopeo squid:squid htpasswd:apache2-utils
  # network namespaces, for tests of pods' networks
  ip:iproute2
  # the other clients of a registry
  curl:curl ctr:containerd
  # the browser that tests the registry's web pages, and a font for it
  chromium:chromium chromedriver:chromium-driver /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf:fonts-dejavu-core
  # the other database of the registry's token service; each test starts a server of its own
  /usr/share/doc/postgresql/copyright:postgresql
  # programs that the benchmarks compare with
  mkfs.erofs:erofs-utils openssl:openssl
)

die() { echo "set-up: $*" >&2; exit 1; }

missing=()
for need in "${needs[@]}"; do
  thing=${need%:*}
  case $thing in
    /*) [[ -e $thing ]] ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$thing" >/dev/null ;;
  esac || missing+=("${need##*:}")
done

# stage0 is built for a target without an operating system. rustup reads the toolchain file, but adds what is missing by itself
# only if RUSTUP_AUTO_INSTALL allows it and the toolchain is not there yet.
bare_target=x86_64-unknown-none
has_bare_target() { [[ -d $(rustc --print target-libdir --target "$bare_target") ]]; }
if ! has_bare_target; then
  [[ ${1:-} != --check ]] || die "the Rust toolchain lacks the target $bare_target; \`make setup\` adds it"
  command -v rustup >/dev/null || die "the Rust toolchain lacks the target $bare_target, and there is no rustup to add it"
  echo "set-up: rustup target add $bare_target"
  rustup target add "$bare_target"
fi

qemu_is_new_enough() {
  local version
  version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p;q') || return 1
  [[ -n $version ]] && ((version >= qemu_major))
}
old_qemu=
qemu_is_new_enough || old_qemu=qemu-system-x86

if ((${#missing[@]} == 0)) && [[ -z $old_qemu ]]; then
  echo 'set-up: every Debian package is installed'
  exit 0
fi
[[ ${1:-} != --check ]] || die "missing Debian packages: ${missing[*]} $old_qemu (QEMU: $qemu_major or newer); \`make setup\` installs them"
command -v apt-get >/dev/null || die "missing: ${missing[*]} $old_qemu; this script can install them on Debian only"
((EUID == 0)) || die "missing Debian packages: ${missing[*]} $old_qemu; run \`make setup\` as root to install them"

export DEBIAN_FRONTEND=noninteractive
install_packages() { # [-t SUITE] PACKAGE…
  echo "set-up: apt-get install $*"
  apt-get -qq -y --no-install-recommends install "$@" </dev/null
}

# Packages whose services would start and listen, now and at each boot. Tests start the programs themselves.
services=(docker-registry squid containerd postgresql)
install_without_services() { # PACKAGE…
  local policy=/usr/sbin/policy-rc.d service
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  install_packages "$@"
  for service in "${services[@]}"; do
    [[ " $* " == *" $service "* ]] || continue
    echo "set-up: disables the service $service"
    if [[ -e /etc/init.d/$service ]]; then
      update-rc.d "$service" disable >/dev/null
    elif command -v systemctl >/dev/null; then
      systemctl --quiet disable "$service.service"
    fi
  done
  [[ -z $(trap -p EXIT) ]] || { rm -f "$policy"; trap - EXIT; }
}

# Only QEMU comes from backports; everything else from the host's suite.
add_backports() {
  local mirror
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $codename" | head -n 1)
  [[ -n $mirror ]] || die "apt has no mirror of $codename"
  echo "set-up: writes $backports (bookworm-backports of $mirror, for QEMU $qemu_major); delete it to undo"
  printf '%s\n' "# Added by Casemate's set-up: QEMU $qemu_major for the testbed comes from bookworm-backports." \
    'Types: deb' "URIs: $mirror" 'Suites: bookworm-backports' 'Components: main' "Signed-By: $keyring" >"$backports"
  apt-get -qq update
}

apt-get -qq update
((${#missing[@]} == 0)) || install_without_services "${missing[@]}"
if [[ -n $old_qemu ]]; then
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  if [[ $codename == bookworm ]]; then
    [[ -e $backports ]] || add_backports
    install_packages -t bookworm-backports "$old_qemu"
  else
    install_packages "$old_qemu"
  fi
fi
exec "$0" --check
