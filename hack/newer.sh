#!/usr/bin/env bash
# Unpacks programs of a newer Debian suite, with their libraries, into a folder of the target directory: newer.sh FOLDER SUITE PACKAGE...
# They are started through FOLDER/bin/PROGRAM. The system's packages and package lists stay untouched. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 suite=$2
shift 2
to=${CARGO_TARGET_DIR:-target}/$folder
[ ! -d "$to/bin" ] || exit 0
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/root/lib" "$state/root/bin" "$state/etc/preferences.d"
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
apt install --download-only --no-install-recommends -y "$@" >/dev/null
for package in "$state"/cache/archives/lib*.deb; do dpkg-deb -x "$package" "$state/root/lib"; done
for name in "$@"; do
  dpkg-deb -x "$state"/cache/archives/"$name"_*.deb "$state/root/lib"
  for program in $(dpkg-deb -c "$state"/cache/archives/"$name"_*.deb | sed -n 's,^-.* \./\(usr/s\?bin/.*\)$,\1,p'); do
    # Its own loader and C library: the system's may be older than what it was built for.
    cat >"$state/root/bin/${program##*/}" <<W
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
for loader in "\$root"/lib/usr/lib*/ld-linux-*.so.*; do :; done
exec "\$loader" --library-path "\$(echo "\$root"/lib/usr/lib/*-linux-gnu*)" "\$root/lib/$program" "\$@"
W
    chmod 755 "$state/root/bin/${program##*/}"
  done
done
rm -rf "$to" "$to.new"
mkdir -p "$(dirname "$to")"
mv "$state/root" "$to.new"
mv "$to.new" "$to"
