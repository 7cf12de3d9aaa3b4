#!/bin/sh
# Runs a compiler and keeps what it says, ptxas's report on every kernel, beside the object file,
# where bench/kernels.py finds it.
set -u
object=
previous=
for argument; do
  [ "$previous" != -o ] || object=$argument
  previous=$argument
done
"$@" >"$object.ptxas" 2>&1
status=$?
cat "$object.ptxas"
exit $status
