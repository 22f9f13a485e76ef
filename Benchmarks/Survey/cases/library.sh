#!/bin/bash
# library.sh SONAME CASE TREE [N]: compiles CASE/trigger.c against the library that TREE holds, and runs it with that library.
# Exit: 1 vulnerable, 0 fixed, else could not tell.
set -eu
soname=$1 case=$2 tree=$3
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
library=$(find "$tree" -name "$soname" | head -1)
[ -n "$library" ] || { echo "no $soname in $tree" >&2; exit 2; }
gcc -O1 -w -I"$(dirname "$0")" -o "$build/trigger" "$case/trigger.c" "$library" ${LIBS:-} || exit 2
LD_LIBRARY_PATH=$(dirname "$library") "$build/trigger" "${4:-1}"
