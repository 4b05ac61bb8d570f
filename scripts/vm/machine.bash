# Sourced by scripts/test-vm: QEMU, and one run of the machine.
# shellcheck shell=bash

QEMU_ROOT="$CACHE/qemu"
QEMU_GOOD=9 # QEMU 10 emulates the start of a process five times as fast as Debian 12's 7.2
UNPACKED=no # whether QEMU is the one in QEMU_ROOT, to which the cache is /cache
FILES="$CACHE"
KVM=no
CPU=max
MACHINE_PID=''

# Choose a QEMU: this machine's if it is new enough, else Debian's backport, unpacked into the cache, else what Debian has.
find_qemu() {
    if have qemu-system-x86_64 && [ "$(qemu_version qemu-system-x86_64)" -ge "$QEMU_GOOD" ]; then
        :
    elif [ -x "$QEMU_ROOT/usr/bin/qemu-system-x86_64" ] || unpack_qemu; then
        UNPACKED=yes FILES=/cache
        mkdir -p -- "$QEMU_ROOT/cache"
    else
        warn "no newer QEMU can be fetched (see .cache/test-vm/qemu.log): the tests take several times longer"
        have qemu-system-x86_64 || install_debian qemu-system-x86
        CPU+=,-cx16 # QEMU 7.2's emulation of CMPXCHG16B now and then spoils the flags
    fi
}

qemu_version() { "$@" --version | sed -n '1s/.*version \([0-9]*\)\..*/\1/p'; }

unpack_qemu() {
    local sources backports
    say "fetching a newer QEMU (unpacked into .cache/test-vm, not installed)"
    mapfile -t sources < <(host_sources)
    [ "${#sources[@]}" -gt 0 ] || sources=("deb http://deb.debian.org/debian $SUITE main")
    # The backports are beside the release in every mirror.
    backports="$(printf '%s\n' "${sources[@]}" | sed -n "s/ $SUITE main\$/ $SUITE-backports main/p" | head -n 1)"
    rm -rf --one-file-system -- "$QEMU_ROOT" "$QEMU_ROOT.new"
    if ! mmdebstrap --mode=root --variant=apt --format=directory --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' --aptopt="APT::Default-Release \"$SUITE-backports\"" \
        --include="qemu-system-x86/$SUITE-backports" \
        "$SUITE" "$QEMU_ROOT.new" "${sources[@]}" "$backports" >"$CACHE/qemu.log" 2>&1; then
        rm -rf --one-file-system -- "$QEMU_ROOT.new"
        return 1
    fi
    mv -- "$QEMU_ROOT.new" "$QEMU_ROOT"
}

# Whether KVM really runs a kernel: /dev/kvm may be there and not work, inside another virtual machine for one. Without a root
# file system the kernel gives up within a second or two, which ends the machine.
kvm_works() {
    [ -w /dev/kvm ] || return 1
    ln -- "$CACHE/vmlinuz" "$SCRATCH/probe"
    { run_qemu 15 -accel kvm -cpu max -machine q35 -m 256 -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$FILES/${SCRATCH##*/}/probe" -append "panic=-1"; } >"$SCRATCH/kvm.log" 2>&1
}

choose_accelerator() {
    if kvm_works; then KVM=yes CPU=max; fi
}

default_patience() { if [ "$KVM" = yes ]; then echo 1; else echo 5; fi; }

# Run QEMU for so many seconds at most, with the arguments that follow; its exit status, 124 when it had to be ended.
# It dies with this script, even when that is killed.
run_qemu() {
    local limit="$1" status=0
    shift
    # Input that never comes nor ends: at the end of its input QEMU would take the channel of the output for closed, too.
    [ -p "$SCRATCH/never" ] || mkfifo -- "$SCRATCH/never"
    start_qemu "$limit" "$@" <>"$SCRATCH/never" &
    MACHINE_PID=$!
    wait "$MACHINE_PID" || status=$?
    MACHINE_PID=''
    return "$status"
}

start_qemu() {
    local limit=(setpriv --pdeathsig TERM timeout --kill-after=10 "$1")
    shift
    if [ "$UNPACKED" = no ]; then
        exec "${limit[@]}" setpriv --pdeathsig KILL qemu-system-x86_64 "$@"
    fi
    # shellcheck disable=SC2016 # for the inner shell
    exec "${limit[@]}" unshare --mount --propagation private sh -euc '
        root="$1" cache="$2"
        shift 2
        mount --rbind /dev "$root/dev"
        mount --bind "$cache" "$root/cache"
        exec setpriv --pdeathsig KILL chroot "$root" qemu-system-x86_64 "$@"' sh "$QEMU_ROOT" "$CACHE" "$@"
}

end_machine() {
    if [ -z "$MACHINE_PID" ]; then return 0; fi # a bare return would be that of the script
    kill -TERM "$MACHINE_PID" 2>/dev/null || true
    wait "$MACHINE_PID" || true
    MACHINE_PID=''
}

# What the machine gets to do, as a tar that is its second disk: settings and the command, then the source.
# Arguments: the directory with the command, how many boots, which parts of the source come back.
pack_job() {
    {
        printf 'NETENGINE_TEST_%s\n' "PATIENCE=$PATIENCE" SKIPS=fail FAILURES=at-once
        printf "BOOTS=%s\nKEEP='%s'\n" "$2" "$3"
    } >"$1/settings"
    truncate -s 64M -- "$1/kept"
    tar -C "$1" -cf "$1/job.tar" settings command
    mkdir -- "$1/source"
    source_files | tar -C "$REPO" --null --files-from=- -cf - | tar -C "$1/source" -xf -
    # Compiling takes this machine seconds and an emulated one a minute or more. A python of another version there ignores it.
    "$VENV/bin/python" -m compileall -q -s "$1/source" -p "$SOURCE" "$1/source/netengine" "$1/source/tests" || true
    tar -C "$1" -rf "$1/job.tar" source
}

# Boot, show what the command prints, return its exit status: 255 when the machine died before it could tell, 124 out of time.
# The root disk is a throw-away copy. Arguments: the directory with the job, whether systemd is to run (yes, no).
run_machine() {
    local directory="$1" systemd="$2" at="$FILES/${1##*/}" init=/usr/local/sbin/test-vm-init accelerate status=0 code arguments
    accelerate="$(if [ "$KVM" = yes ]; then echo kvm; else echo tcg,thread=multi,tb-size=512; fi)"
    arguments=(-accel "$accelerate" -cpu "$CPU" -machine q35 -smp "$CPUS" -m "$MEMORY" -nodefaults -no-user-config -display none)
    if [ "$systemd" = yes ]; then init=/sbin/init; else arguments+=(-no-reboot); fi
    arguments+=(
        -drive "file=$at/root.img,if=none,id=root,format=raw,snapshot=on,cache=unsafe" -device nvme,serial=root,drive=root
        -drive "file=$at/job.tar,if=none,id=job,format=raw,readonly=on" -device nvme,serial=job,drive=job
        -drive "file=$at/kept,if=none,id=kept,format=raw" -device nvme,serial=kept,drive=kept
        -serial "file:$at/console" -serial "file:$at/status"
        -device virtio-serial-pci -chardev "stdio,id=out,signal=off,logfile=$at/output" -device virtserialport,chardev=out,name=out
        -device virtio-rng-pci -kernel "$at/vmlinuz"
        # mitigations=off spares page-table switches, which are dear under emulation.
        -append "console=ttyS0 root=PARTUUID=$DISK_ID-01 rw init=$init panic=-1 mitigations=off"
    )
    say "starting a machine ($(if [ "$KVM" = yes ]; then echo KVM; else echo "emulated processor, tests wait $PATIENCE times longer"; fi))"
    run_qemu "$LIMIT" "${arguments[@]}" || status=$?
    if [ "$status" -eq 124 ]; then
        warn "out of time: ended after $LIMIT s (TEST_VM_LIMIT)"
        return 124
    fi
    code="$(tr -cd 0-9 <"$directory/status" || true)"
    if [ -z "$code" ]; then
        warn "the machine died (QEMU: status $status); the kernel's last words:"
        tail -n 25 -- "$directory/console" >&2 || true
        return 255
    fi
    return "$code"
}

# Put the pages that the machine has written where they belong, and name them. Argument: the directory of the run.
take_pages() {
    local page
    mkdir -- "$1/pages"
    tar -C "$1/pages" -xf "$1/kept" 2>/dev/null || return 0 # it ended before it wrote them
    while IFS= read -r -d '' page; do
        # As it was sent, or as it is here by now.
        if cmp -s -- "$1/pages/$page" "$1/source/$page" || cmp -s -- "$1/pages/$page" "$REPO/$page"; then continue; fi
        if cmp -s -- "$REPO/$page" "$1/source/$page"; then
            cat -- "$1/pages/$page" >"$REPO/$page" # keeps its owner, who may not be root
            say "written: $page"
        else
            cp -- "$1/pages/$page" "$CACHE/"
            warn "$page was edited meanwhile and is left as it is: what the machine has written is in ${CACHE#"$REPO"/}/${page##*/}"
        fi
    done < <(cd -- "$1/pages" && find . -name '*.md' -type f -printf '%P\0')
}

# Say how a run went, and keep what it printed. Arguments: its directory, its exit status.
summarize() {
    local counts outcome=passed
    if [ ! -s "$1/output" ]; then return; fi
    mv -f -- "$1/output" "$CACHE/last.log"
    if [ "$2" -ne 0 ]; then outcome="failed (exit status $2)"; fi
    # pytest's last line, once for each boot.
    counts="$(grep -aoE '^(=+ )?[0-9]+ (passed|failed|errors?|skipped|deselected).* in [0-9.]+s' -- "$CACHE/last.log" |
        tr -d = | paste -sd ';' || true)"
    say "$outcome on Linux $(<"$CACHE/release") in $((SECONDS / 60)) min $((SECONDS % 60)) s${counts:+: ${counts# }}"
    say "all that it printed: ${CACHE#"$REPO"/}/last.log"
}
