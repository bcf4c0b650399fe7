#!/bin/sh
# Turns a Debian root file system ($1) into the default sandbox image. Used by `infield setup` and by the Dockerfile, which
# put the files of npm/ beside this one.
set -eu
root=$1
recipe=$(dirname "$0")

# The user that runs commands; may become root without a password, as the sandbox itself is the wall.
chroot "$root" useradd --uid 1000 --user-group --create-home --shell /bin/bash daytona
echo 'daytona ALL=(ALL:ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/daytona"
chmod 0440 "$root/etc/sudoers.d/daytona"

# `pip install` and `npm install -g` work for that user without sudo and end up in ~/.local/bin.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
install -d -o 1000 -g 1000 "$root/home/daytona/.local" "$root/home/daytona/.local/bin"
echo 'prefix=/home/daytona/.local' > "$root/home/daytona/.npmrc"
chown 1000:1000 "$root/home/daytona/.npmrc"

# TypeScript, ts-node and the language server: exactly those of the lock file, fetched by the image's own npm. It trusts what
# the building machine trusts, where somebody may stand between it and the registry.
node=/usr/local/lib/infield-node
mkdir -p "$root$node"
cp "$recipe/package.json" "$recipe/package-lock.json" "$root$node/"
authorities=/tmp/authorities.crt
cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root$authorities" 2>/dev/null \
    || cp "$root/etc/ssl/certs/ca-certificates.crt" "$root$authorities"
chroot "$root" env HOME=/tmp npm_config_cache=/tmp/npm npm_config_cafile=$authorities NODE_EXTRA_CA_CERTS=$authorities \
    sh -c "cd $node && npm ci --omit=peer --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error" || {
    echo 'E: npm could not fetch TypeScript for the image; is the npm registry reachable from this machine?' >&2
    exit 1
}
for program in tsc tsserver ts-node typescript-language-server; do
    ln -s "../lib/infield-node/node_modules/.bin/$program" "$root/usr/local/bin/$program"
done
# The compiler's messages in other languages.
find "$root$node/node_modules/typescript/lib" -mindepth 2 -name diagnosticMessages.generated.json -delete
find "$root$node/node_modules/typescript/lib" -mindepth 1 -type d -empty -delete

# What matplotlib's packages bring along and nothing here uses, a third of the image; `apt-get install --reinstall` of the
# package brings it back.
rm -rf "$root"/usr/include/boost "$root"/usr/share/unicode "$root"/usr/lib/*/openblas-pthread/*.a
for package in numpy scipy sympy matplotlib mpl_toolkits fontTools pythran; do
    find "$root/usr/lib/python3/dist-packages/$package" -depth -type d -name tests -exec rm -rf {} +
done

# The list of fonts takes matplotlib a second to make: once here instead of once in each sandbox.
chroot "$root" su daytona -s /bin/sh -c 'cd && MPLBACKEND=agg python3 -c "import matplotlib.font_manager"'

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
