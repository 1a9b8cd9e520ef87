#!/usr/bin/env bash
# Brings a fresh Debian 12 to the point where a make target can run.
#
#   .ci/setup.sh build    what `make shim`, `make run` and `make bench` need
#   .ci/setup.sh test     the same, and what `make check` and `make test` need
#
# Called by every make target, so the second run must cost nothing: packages are looked up with
# dpkg-query and apt is called only for those that are missing; `npm ci` runs only when
# node_modules was not made from the present package-lock.json. Once set up it works offline.
#
# URINGLOOP_SKIP_APT=1 leaves packages alone (another distribution, or tools from elsewhere).
# The reason for each package is in docs/dependencies.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build_packages=(gcc make libc6-dev liburing-dev ca-certificates curl netcat-openbsd wrk linux-perf)
test_packages=(binutils clang clang-format libclang-rt-14-dev llvm-14 strace iproute2 nftables)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Node and npm count by command, not by package: a newer Node from elsewhere is as good as Debian's.
missing_packages() {
    local package
    for package in "$@"; do is_installed "$package" || echo "$package"; done
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
}

install_packages() {
    [ "${URINGLOOP_SKIP_APT:-0}" = 1 ] && return
    command -v dpkg-query >/dev/null ||
        fail "not a Debian system. Install the like of: $* nodejs npm; then set URINGLOOP_SKIP_APT=1"
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return

    local install="apt-get install -y --no-install-recommends ${missing[*]}"
    local -a as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        else
            fail "packages are missing and neither root nor password-less sudo is at hand. Run:
  sudo apt-get update && sudo $install"
        fi
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A failed update is not yet fatal: the package lists at hand may be enough.
    "${as_root[@]}" apt-get update -q >&2 || say "apt-get update failed, trying with the lists at hand"
    # shellcheck disable=SC2086  # $install is a list of words
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $install >&2 || fail "this failed: $install"
}

bun_works() { node_modules/.bin/bun --version >/dev/null 2>&1; }

# The stamp lies inside node_modules, so that removing the folder removes the stamp with it.
install_node_modules() {
    local stamp=node_modules/.uringloop-lock wanted
    wanted=$(sha256sum package-lock.json | cut -d' ' -f1)
    if [ -f "$stamp" ] && [ "$(<"$stamp")" = "$wanted" ] && bun_works; then return; fi

    say "npm ci"
    npm ci --no-audit --no-fund >&2
    # npm may hold back install scripts (ignore-scripts, or a policy). Bun's only links the
    # platform's binary from its optional dependency into place, so it is run here by hand.
    bun_works || node node_modules/bun/install.js >&2 || true
    bun_works || fail "node_modules/.bin/bun does not run. Try: npm ci && node node_modules/bun/install.js"
    echo "$wanted" >"$stamp"
}

main() {
    local -a packages
    case "${1:-}" in
    build) packages=("${build_packages[@]}") ;;
    test) packages=("${build_packages[@]}" "${test_packages[@]}") ;;
    *) fail "usage: .ci/setup.sh build|test" ;;
    esac
    # flock is in util-linux, which Debian always has. One set-up at a time: two `npm ci` in one
    # folder, or two apt-get, would break each other.
    exec 9<.ci/setup.sh
    flock 9
    install_packages "${packages[@]}"
    install_node_modules
}

main "$@"
