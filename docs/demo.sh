#!/bin/bash
# What `make run` shows: an image built, run as a pod, looked at, entered, stopped and collected.
# Everything happens in a data directory of its own, which is gone at the end.
set -euo pipefail

RKT=${RKT:-rkt-py}
WORK=$(mktemp -d /var/tmp/rkt-py-demo.XXXXXX)
RUNNING=

finish() {
    local code=$?
    trap - EXIT
    if [ -n "$RUNNING" ] && kill -0 "$RUNNING" 2>/dev/null; then
        kill "$RUNNING"
        wait "$RUNNING" || true
    fi
    "$RKT" --dir="$WORK/data" gc --grace-period=0s --expire-prepared=0s >/dev/null 2>&1 || true
    # Never across a mount: if one should be left, what it shows is not ours.
    rm -rf --one-file-system "$WORK"
    if [ "$code" != 0 ]; then
        echo "The demonstration failed with exit code $code." >&2
    fi
    exit "$code"
}
trap finish EXIT

say() {
    printf '\n\033[1m# %s\033[0m\n' "$*"
}

show() {
    local word
    printf '$ rkt-py'
    for word in "$@"; do
        if [[ $word =~ ^[[:alnum:]_./:=,\&-]+$ ]]; then
            printf ' %s' "$word"
        else
            printf ' %s' "${word@Q}"
        fi
    done
    printf '\n'
}

rkt() {
    show "$@"
    "$RKT" --dir="$WORK/data" "$@"
}

cd "$WORK"

say "A root file system: Debian's static busybox"
mkdir -p rootfs/bin rootfs/etc rootfs/tmp srv
cp /bin/busybox rootfs/bin/
for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "rootfs/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >rootfs/etc/passwd
echo 'root:x:0:' >rootfs/etc/group
du -sh rootfs

say "An image of it"
rkt image build --name example.com/hello --version 1.0.0 --exec /bin/sh rootfs/ hello.aci
ls -l hello.aci

say "Run it as a pod: own processes, host name, capabilities, system call filter"
rkt --insecure-options=image run hello.aci --exec /bin/sh -- -c \
    'id; hostname; ps; grep -E "^(NSpid|CapBnd|Seccomp):" /proc/self/status'

say "The image is in the store now"
rkt image list

say "Two apps in one pod, with a volume of the host in both"
rkt --insecure-options=image run --volume data,kind=host,source="$WORK/srv" --mount volume=data,target=/data \
    hello.aci --name=writer --exec /bin/sh -- -c 'echo "hello from the writer" >/data/message' --- \
    hello.aci --name=reader --exec /bin/sh -- -c 'until cat /data/message 2>/dev/null; do sleep 0.1; done'

say "Prepare a pod, run it in the background"
show --insecure-options=image prepare hello.aci --memory=64M --exec /bin/sh -- -c 'echo "I am up"; exec sleep 600'
UUID=$("$RKT" --dir="$WORK/data" --insecure-options=image prepare hello.aci --memory=64M --exec /bin/sh \
    -- -c 'echo "I am up"; exec sleep 600')
echo "$UUID"
show run-prepared "$UUID" '&'
"$RKT" --dir="$WORK/data" run-prepared "$UUID" &
RUNNING=$!
rkt status --wait-ready=20s "$UUID"

say "Look at it, by a short UUID"
rkt list
rkt enter "${UUID:0:8}" /bin/sh -c 'echo "inside: $(hostname), $(ps | wc -l) lines of ps"; cat /etc/passwd'
rkt logs "${UUID:0:8}"
pid1=$("$RKT" --dir="$WORK/data" status "$UUID" | sed -n 's/^pid=//p')
echo "Memory of rkt-py's own processes, the supervisor and the pod's pid 1:" \
    "$(awk '/^Pss:/ { sum += $2 } END { print sum " kB" }' "/proc/$RUNNING/smaps_rollup" "/proc/$pid1/smaps_rollup")"

say "Stop it"
rkt stop "${UUID:0:8}"
wait "$RUNNING" || true
RUNNING=
rkt status "${UUID:0:8}"

say "Collect everything"
rkt rm "${UUID:0:8}"
rkt gc --grace-period=0s
rkt list

say "Nothing is left"
echo "pods: $(find data/pods -mindepth 2 -maxdepth 2 | wc -l), mounts: $(grep -c "$WORK" /proc/self/mountinfo || true)"
