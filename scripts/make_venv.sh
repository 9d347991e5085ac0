#!/bin/bash
# Make the virtual environment DIRECTORY on PYTHON, or bring it up to date: pip's arguments follow.
#   scripts/make_venv.sh PYTHON DIRECTORY PIP_ARGUMENT...
set -euo pipefail

python=$1 directory=$2
shift 2

scripts/check_python.sh "$python"
if ! "$directory/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	rm -rf "$directory"
	"$python" -m venv "$directory"
fi
"$directory/bin/pip" install --quiet --disable-pip-version-check --root-user-action=ignore "$@"
