#!/bin/sh
# Turns a Debian root file system ($1) into the default sandbox image. Used by `infield setup` and by the Dockerfile.
set -eu
root=$1

# The user that runs commands; may become root without a password, as the sandbox itself is the wall.
chroot "$root" useradd --uid 1000 --user-group --create-home --shell /bin/bash daytona
echo 'daytona ALL=(ALL:ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/daytona"
chmod 0440 "$root/etc/sudoers.d/daytona"

# `pip install` and `npm install -g` work for that user without sudo and end up in ~/.local/bin.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
install -d -o 1000 -g 1000 "$root/home/daytona/.local" "$root/home/daytona/.local/bin"
echo 'prefix=/home/daytona/.local' > "$root/home/daytona/.npmrc"
chown 1000:1000 "$root/home/daytona/.npmrc"

# No service manager runs inside: a package must not try to start its daemon.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"

# The engine writes these for each sandbox. Nothing of the building host may stay (inside `docker build` they are mounts).
for file in etc/hostname etc/hosts etc/resolv.conf; do
    : > "$root/$file"
done 2>/dev/null || true
: > "$root/etc/machine-id"

# What installing left behind; `apt-get update` brings the lists back.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
rm -rf "$root"/var/log/apt "$root"/var/log/dpkg.log "$root"/var/log/alternatives.log "$root"/var/log/bootstrap.log
rm -rf "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/var/cache/ldconfig/aux-cache
find "$root/tmp" "$root/var/tmp" -mindepth 1 -delete
