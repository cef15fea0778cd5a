#!/usr/bin/env bash
# The CRIU of a newer Debian suite (4.2 or newer): Debian 12's fails on kernels from 6.x on.
exec "$(dirname "$0")/newer.sh" criu "${1:-sid}" criu
