#!/usr/bin/env bash
# Installs what building, testing and the demo need on Debian. Does nothing, quickly, when all is there.
set -euo pipefail
BUILD="gcc libc6-dev pkg-config libseccomp-dev git"
RUN="nftables iproute2 iptables procps kmod ca-certificates"
FIXTURES="bats gawk attr time golang-github-containers-common python3 busybox-static mmdebstrap tini curl jq socat netcat-openbsd zstd e2fsprogs xfsprogs btrfs-progs erofs-utils fuse-overlayfs uidmap util-linux strace openssl"
VM="qemu-system-x86 cpio xz-utils binutils"
PEERS="runc crun podman conmon netavark aardvark-dns skopeo umoci docker-registry containerd docker.io containernetworking-plugins iperf3 passt slirp4netns"

missing() { for p in $BUILD $RUN $FIXTURES $VM $PEERS; do dpkg-query -W -f '${db:Status-Abbrev}\n' "$p" 2>/dev/null | grep -q '^ii' || echo "$p"; done; }
packages=$(missing)
if [ -n "$packages" ]; then
  echo "setup: apt-get install" $packages
  [ "$(id -u)" = 0 ] || { echo "Error: installing packages needs root. Hint: sudo hack/dev setup" >&2; exit 1; }
  # The packages' services must not start (Debian policy-rc.d); ours to remove only if we made it.
  made=; [ -e /usr/sbin/policy-rc.d ] || { made=1; printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; }
  trap '[ -z "$made" ] || rm -f /usr/sbin/policy-rc.d' EXIT
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=600 update
  apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $packages >/dev/null
fi
command -v cargo >/dev/null || { echo "Error: cargo is missing. Hint: install Rust 1.95 or newer with rustup" >&2; exit 1; }
for c in rustfmt clippy; do
  cargo "${c/rustfmt/fmt}" --version >/dev/null 2>&1 || { echo "setup: rustup component add $c"; rustup component add "$c"; }
done
hack/criu.sh || echo "setup: no newer CRIU to be had: tests of checkpoint and restore will be skipped" >&2
hack/newer.sh sigstore trixie skopeo cosign || echo "setup: no skopeo and cosign that know sigstore: tests with them will be skipped" >&2
