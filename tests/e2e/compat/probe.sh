# What a command in a container sees, as lines KEY=VALUE. Runs in busybox's shell and in the host's.
say() { printf '%s=%s\n' "$1" "$2"; }
try() { key=$1; shift; if ("$@") >/dev/null 2>&1; then say "$key" yes; else say "$key" no; fi; }
write() { : >"$1"; }

say pid "$$"
say uid "$(id -u)"
say gid "$(id -g)"
say groups "$(id -G)"
say uid_map "$(tr -s ' \n' ' ' </proc/self/uid_map)"
say gid_map "$(tr -s ' \n' ' ' </proc/self/gid_map)"
for key in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters; do
    say "$key" "$(sed -n "s/^$key:[[:space:]]*//p" /proc/self/status)"
done
for kind in user pid mnt ipc uts net cgroup; do
    say "ns $kind" "$(readlink "/proc/self/ns/$kind")"
done
say cgroup "$(cut -d: -f3 /proc/self/cgroup | sort -u | tr '\n' ' ')"
say hostname "$(cat /proc/sys/kernel/hostname)"
say cwd "$(pwd)"
say umask "$(umask)"
say links "$(sed -n 's/:.*//p' /proc/net/dev | tr -d ' ' | sort | tr '\n' ' ')"
env | sed -n 's/^\([A-Za-z_]*\)=/env \1=/p' | grep -v -E '^env (PWD|OLDPWD|SHLVL|_)='

# Target and what the mount forbids; the type only where it is the kernel's own.
while read -r _ target type options _; do
    flags=$(printf '%s' "$options" | tr , '\n' | grep -x -E 'ro|nosuid|nodev|noexec' | sort | tr '\n' ' ')
    say "mount $target" "$type $flags"
done </proc/self/mounts

for path in $MASKED; do
    if [ -d "$path" ]; then
        say "masked $path" "$(ls -A "$path" | wc -l) entries"
    elif [ -e "$path" ]; then
        say "masked $path" "$(head -c 64 "$path" 2>/dev/null | wc -c) bytes"
    fi
done
for path in $CLOSED; do
    [ ! -d "$path" ] || try "write $path" write "$path/cellblock-probe"
    [ ! -f "$path" ] || try "write $path" sh -c 'printf "" >>"$1"' sh "$path"
done
for place in / /etc /usr /var /tmp /root /sys .; do
    try "write $place" write "$place/cellblock-probe"
done
rm -f ./cellblock-probe

for name in $(ls -A /dev); do
    say "dev $name" "$(stat -c '%A %t:%T' "/dev/$name")"
done
try "read /dev/urandom" head -c 1 /dev/urandom
try "write /dev/null" write /dev/null
(head -c 1000000 /dev/zero >/dev/shm/../fill) 2>/dev/null
say "dev holds" "$(stat -c %s /dev/fill)"
rm -f /dev/fill
try "mknod" mknod /tmp/node c 1 3
try "mount" mount -t tmpfs none /mnt
try "unshare" unshare -U true
try "chown" chown 0:0 /etc/hostname
try "chown to another" chown 1:1 /etc/hostname
say "owner of /etc/shadow" "$(stat -c %u:%g /etc/shadow 2>/dev/null)"
