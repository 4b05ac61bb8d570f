# Sourced by the scripts beside this directory: where things are, how to speak, how to become root.
# shellcheck shell=bash

REPO="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)"
VENV="$REPO/.venv"
# The distribution's python: only that one sees python3-nftables. Another may come first on PATH (pyenv, conda).
SYSTEM_PYTHON=/usr/bin/python3
# An ordinary user's PATH on Debian lacks the directories of nft, ip and runc.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export REPO VENV SYSTEM_PYTHON PATH
APT_WAIT=300 # seconds

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    warn "$@"
    exit 1
}

have() { command -v -- "$1" >/dev/null 2>&1; }

# Print the comment at the head of the calling script, its usage.
usage() { sed -n '2,/^$/{s/^# \{0,1\}//;p;}' -- "$0"; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# Say at once, before anything is done, when root is needed and cannot be had. Argument: what for.
need_root() {
    if is_root; then return; fi
    have sudo || die "root is needed to $1: run this as root (there is no sudo here)"
    if sudo -n true 2>/dev/null; then return; fi
    [ -t 0 ] || die "root is needed to $1: run this as root, or as a user who may sudo ($(id -un) may not without a password)"
    say "root is needed to $1: sudo asks for your password"
    sudo -v || die "root is needed to $1: $(id -un) may not sudo here; run this as root"
}

as_root() {
    if is_root; then "$@"; else sudo -- "$@"; fi
}

# Whether systemd is the running init, not merely installed: sd_booted(3).
systemd_runs() { [ -d /run/systemd/system ]; }

# Fetch Debian's package lists. Another apt-get at work (a timer's, another run of ours) has them locked: it is waited for.
update_lists() {
    local said waited=no end=$((SECONDS + APT_WAIT))
    until said="$(as_root env LC_ALL=C apt-get -qq update 2>&1)"; do
        if [[ "$said" != *"get lock "* && "$said" != *"lock directory "* ]] || [ "$SECONDS" -ge "$end" ]; then
            warn "$said"
            return 1
        fi
        if [ "$waited" = no ]; then say "another apt-get is at work: waiting for it (at most $APT_WAIT s)"; fi
        waited=yes
        sleep 1
    done
}

# apt-get install, waiting likewise. Arguments: its own, then the packages.
apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        -o "DPkg::Lock::Timeout=$APT_WAIT" "$@" >/dev/null
}
