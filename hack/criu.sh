#!/usr/bin/env bash
# Unpacks the CRIU of a newer Debian suite (4.2 or newer), with its libraries, into the target directory: Debian 12's fails on kernels
# from 6.x on. The system's packages and package lists stay untouched. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-sid}
to=${CARGO_TARGET_DIR:-target}/criu
[ ! -x "$to/bin/criu" ] || exit 0
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/root" "$state/etc/preferences.d"
# The mirror that this machine uses anyway.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' | sed -n 's,/debian/ main$,/debian/,p' | head -1)
keys=$(ls /usr/share/keyrings/debian-archive-keyring.* | head -1)
echo "deb [signed-by=$keys] $mirror $suite main" >"$state/sources.list"
: >"$state/status"
apt() {
  apt-get -qq -o Dir::State="$state" -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" \
    -o Dir::Cache="$state/cache" -o Dir::Etc="$state/etc" -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- \
    -o Acquire::Languages=none -o APT::Update::Post-Invoke-Success::= -o APT::Sandbox::User=root "$@"
}
apt update
apt install --download-only --no-install-recommends -y criu >/dev/null
for package in "$state"/cache/archives/{criu,lib}*.deb; do dpkg-deb -x "$package" "$state/root"; done
# Its own loader and C library: the system's may be older than what it was built for.
mkdir "$state/root/bin.own"
cat >"$state/root/bin.own/criu" <<'W'
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")
for loader in "$root"/lib/usr/lib*/ld-linux-*.so.*; do :; done
exec "$loader" --library-path "$(echo "$root"/lib/usr/lib/*-linux-gnu*)" "$root/lib/usr/sbin/criu" "$@"
W
chmod 755 "$state/root/bin.own/criu"
rm -rf "$to" "$to.new"
mkdir -p "$to.new/lib"
mv "$state/root/bin.own" "$to.new/bin"
mv "$state/root/usr" "$to.new/lib/usr"
mv "$to.new" "$to"
"$to/bin/criu" --version | head -1
