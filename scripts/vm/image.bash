# Sourced by scripts/test-vm: the disk image of the machine, made from Debian's packages and by vagrant/provision.sh.
# shellcheck shell=bash

SUITE=bookworm
CACHE="$REPO/.cache/test-vm"
# The cloud kernel has ext4 and NVMe built in: no initrd, boot loader or BIOS disk is needed, and it boots in seconds.
KERNEL=linux-image-cloud-amd64
# What makes a machine of a root file system. Everything else is for vagrant/provision.sh to find missing.
PACKAGES="$KERNEL,systemd-sysv,udev,dbus,kmod,netbase,ca-certificates,tzdata"
# How the kernel finds its root: NVMe disks are numbered in the order in which they answer, which varies.
DISK_ID=6e657476
IMAGE_SIZE=4G
SOURCE=/opt/netengine
GUEST="$REPO/scripts/vm/guest"

# Install what this script stands on, where it is missing.
install_tools() {
    local packages=()
    have mmdebstrap || packages+=(mmdebstrap)
    have mke2fs || packages+=(e2fsprogs)
    have sfdisk || packages+=(fdisk)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
    install_debian "${packages[@]}"
}

install_debian() {
    if [ $# -eq 0 ]; then return; fi
    have apt-get || die "this distribution has no apt-get: install what Debian calls $*, then run this again"
    say "installing packages: $*"
    update_lists
    apt_install "$@"
}

# Print the apt source of each archive of the suite that this machine uses itself, else nothing: mmdebstrap knows Debian's own.
host_sources() {
    have apt-get || return 0
    apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) main' 'Created-By: Packages' |
        grep -E " $SUITE(-updates|-security)? " | sort -u || true
}

# The machine is made from these: when none has changed, it is as it would be made.
image_fingerprint() {
    {
        cat -- "$REPO"/{vagrant/provision.sh,scripts/install,scripts/lib/common.bash,scripts/vm/image.bash,pyproject.toml} "$GUEST"/*
        if have docker; then sha256sum -- "$(command -v docker)"; fi
    } | sha256sum | cut -d' ' -f1
}

# Argument: yes to make it anew in any case.
make_image() {
    local print log="$CACHE/build.log" root="$CACHE/root" began=$SECONDS
    print="$(image_fingerprint)"
    exec 8>"$CACHE/lock"
    flock -n 8 || { say "another run is making the image: waiting for it" && flock 8; }
    if [ "$1" = yes ] || [ ! -r "$CACHE/stamp" ] || [ "$(<"$CACHE/stamp")" != "$print" ]; then
        say "making the machine (a minute or two; its log: .cache/test-vm/build.log)"
        rm -f -- "$CACHE/stamp"
        rm -rf --one-file-system -- "$root"
        fetch_wheels
        make_root "$root" >"$log" 2>&1 || { tail -n 20 -- "$log" >&2 && die "the machine cannot be made (the whole log: $log)"; }
        make_disk "$root"
        rm -rf --one-file-system -- "$root"
        printf '%s\n' "$print" >"$CACHE/stamp"
        say "made: kernel $(<"$CACHE/release"), $(du -h -- "$CACHE/root.img" | cut -f1), $((SECONDS - began)) s"
    fi
    # A later build replaces the files: this run holds on to the ones that it knows.
    ln -- "$CACHE/root.img" "$CACHE/vmlinuz" "$SCRATCH/"
    exec 8>&-
}

# pip in the new root may not reach an index (a proxy, certificates of this machine's own): it is given the files.
fetch_wheels() {
    local requirements
    mapfile -t requirements < <("$VENV/bin/python" -I - "$REPO/pyproject.toml" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
# hatchling needs `editables` for `pip install -e`.
wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["test"]
print(*wanted, *project["build-system"]["requires"], "editables", sep="\n")
PYTHON
    )
    "$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --no-input --dest "$CACHE/wheels" \
        --python-version 3.11 --only-binary=:all: "${requirements[@]}" 2>"$CACHE/wheels.log" ||
        { cat -- "$CACHE/wheels.log" >&2 && die "the Python packages cannot be fetched: ${requirements[*]}"; }
}

# Debian in a directory, made into a host of netengine by the script that makes one of any machine.
make_root() {
    local root="$1" sources environment
    mapfile -t sources < <(host_sources)
    mmdebstrap --mode=root --variant=minbase --format=directory \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --include="$PACKAGES" "$SUITE" "$root" "${sources[@]}" || return 1

    mkdir -p -- "$root$SOURCE"
    source_files | tar -C "$REPO" --null --files-from=- -cf - | tar -C "$root$SOURCE" -xf - || return 1
    give_docker_client "$root"
    cp -r -- "$CACHE/wheels" "$root/wheels"
    cp -L -- /etc/resolv.conf "$root/etc/resolv.conf"
    # Of this machine's environment only what apt needs to reach its archive.
    environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
        PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1)
    if [ -n "${http_proxy:-}" ]; then environment+=("http_proxy=$http_proxy"); fi
    in_root "$root" env -i "${environment[@]}" "$SOURCE/vagrant/provision.sh" --test "$SOURCE" || return 1
    rm -rf -- "$root/wheels" "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

    install -m 0755 -- "$GUEST/init" "$root/usr/local/sbin/test-vm-init"
    install -m 0755 -- "$GUEST/job" "$root/usr/local/sbin/test-vm-job"
    install -m 0644 -- "$GUEST/test-vm-job.service" "$root/etc/systemd/system/test-vm-job.service"
    chroot "$root" systemctl --quiet enable test-vm-job.service || return 1
    chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
    printf 'PARTUUID=%s-01 / ext4 defaults 0 0\n' "$DISK_ID" >"$root/etc/fstab"
    echo testvm >"$root/etc/hostname"
    printf '127.0.0.1 localhost testvm\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
    rm -f -- "$root/etc/resolv.conf"
    echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf" # there is no network, so nobody answers
    : >"$root/etc/machine-id"
}

# Run a command in the new root, with the devices and /proc that installers look at, as mounts that end with it.
in_root() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private sh -euc '
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        exec chroot "$@"' sh "$@"
}

# The docker command of this machine travels along where it can run there; otherwise scripts/install fetches Debian's.
give_docker_client() {
    local client="$SOURCE/.cache/docker/usr/bin/docker"
    have docker || return 0
    install -D -m 0755 -- "$(readlink -f -- "$(command -v docker)")" "$1$client"
    chroot "$1" "$client" --version || rm -f -- "$1$client"
}

# The first partition of a disk, filled by mke2fs: no loop device is needed, which a container may not have.
make_disk() {
    local root="$1" disk="$CACHE/root.img.new" kernel
    kernel="$(find "$root/boot" -name 'vmlinuz-*' | sort -V | tail -n 1)"
    rm -f -- "$disk"
    truncate -s "$IMAGE_SIZE" -- "$disk"
    mke2fs -q -t ext4 -O ^has_journal -E "lazy_itable_init=0,offset=$((2048 * 512))" -d "$root" "$disk" 4095M
    # After mke2fs, which clears sector 0.
    printf 'label: dos\nlabel-id: 0x%s\nstart=2048, type=83\n' "$DISK_ID" | sfdisk -q "$disk" >>"$CACHE/build.log" 2>&1
    printf '%s\n' "${kernel##*/vmlinuz-}" >"$CACHE/release"
    cp -- "$kernel" "$CACHE/vmlinuz.new"
    mv -- "$CACHE/vmlinuz.new" "$CACHE/vmlinuz"
    mv -- "$disk" "$CACHE/root.img"
}

# Print the files of the source, each ended by a NUL: what git knows or would add, of what is there.
source_files() {
    local file
    git -c "safe.directory=$REPO" -C "$REPO" ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            if [ -e "$REPO/$file" ] || [ -L "$REPO/$file" ]; then printf '%s\0' "$file"; fi
        done
}
