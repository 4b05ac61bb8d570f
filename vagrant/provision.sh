#!/bin/sh
# usage: provision.sh [--test] [DIRECTORY]
#
# Make a Debian or Ubuntu machine a host of netengine, from the source in DIRECTORY (default /opt/netengine). Runs as root and can
# be run again. Knows nothing of Vagrant: any machine, image or chroot will do. Starts the daemon only where systemd runs.
#
#   --test  also what the test suite needs

set -eu

kind=
if [ "${1:-}" = --test ]; then
    kind=--test
    shift
fi
source_directory="${1:-/opt/netengine}"
export DEBIAN_FRONTEND=noninteractive

if [ "$(id -u)" -ne 0 ]; then
    echo "provision.sh: run this as root" >&2
    exit 1
fi
if [ ! -x "$source_directory/scripts/install" ]; then
    echo "provision.sh: no source of netengine in $source_directory" >&2
    exit 1
fi

# What the scripts themselves and the examples of the guides stand on; the rest is found missing by scripts/install.
if ! command -v bash >/dev/null || ! command -v curl >/dev/null || [ ! -x /usr/bin/python3 ]; then
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends bash ca-certificates curl python3 >/dev/null
fi

"$source_directory/scripts/install" ${kind:+"$kind"} --system

if [ -d /run/systemd/system ]; then
    systemctl start netengine.socket # refused while the service runs, so never restarted
    systemctl restart netengine.service
    if id vagrant >/dev/null 2>&1; then usermod -aG netengine vagrant; fi
fi
