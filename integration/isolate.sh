#!/bin/sh
# isolate.sh NAME COMMAND...: COMMAND as the only user of a mount, network, pid and cgroup namespace of its own, with a
# reaping pid 1, an empty /run, and its own branch of every cgroup hierarchy as their root. Nothing in it can reach the host's.
set -eu
name=$1; shift
for dir in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -e "$dir/cgroup.procs" ] || continue
  mkdir -p "$dir/$name"
  for f in cpuset.cpus cpuset.mems; do
    if [ -e "$dir/$name/$f" ] && [ -e "$dir/$f" ]; then cat "$dir/$f" >"$dir/$name/$f" 2>/dev/null || true; fi
  done
  echo $$ >"$dir/$name/cgroup.procs" || true
done
exec unshare --mount --net --pid --fork --kill-child --cgroup --uts --propagation private sh -c '
  set -eu
  mount -t proc proc /proc
  all=$(grep -E " - cgroup2? " /proc/self/mountinfo)
  echo "$all" | while read -r _ _ _ _ at _; do umount "$at"; done
  # A fresh tree of the same hierarchies, so that their roots are the branches made above.
  [ "$(stat -f -c %T /sys/fs/cgroup)" = sysfs ] || mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  echo "$all" | while read -r _ _ _ _ at _ rest; do
    type=$(echo "$rest" | sed "s/.*- \(cgroup2\?\) .*/\1/"); data=${rest##* }
    mkdir -p "$at"
    case $type in
      cgroup2) mount -t cgroup2 cgroup2 "$at" ;;
      *) mount -t cgroup -o "$(echo "$data" | sed "s/^rw,//; s/,*release_agent=[^,]*//; s/,*clone_children//; s/xattr,//")" cgroup "$at" ;;
    esac
  done
  mount -t tmpfs -o mode=755 tmpfs /run
  # What the first `ip netns add` would do, and leave.
  mkdir /run/netns; mount --bind /run/netns /run/netns
  ip link set lo up
  exec tini -s -- "$@"
' sh "$@"
