#!/bin/sh
# Run one step of the set-up: say what it does; if it fails, say what to do.
#   scripts/step.sh WHAT HINT COMMAND...
what=$1 hint=$2
shift 2
echo "==> $what"
"$@" && exit 0
status=$?
echo "==> $what: failed with exit status $status. $hint" >&2
exit "$status"
