#!/bin/bash
# Install WHEEL into a clean virtual environment and see that it runs and carries every BPF object.
#   scripts/check_wheel.sh PYTHON WHEEL OBJECT...
set -euo pipefail

python=$1 wheel=$(realpath "$2")
shift 2
objects=("$@")

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
"$python" -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check --root-user-action=ignore "$wheel"
for object in "${objects[@]}"; do
	cmp "$object" "$room"/venv/lib/python3*/site-packages/"$object"
done
# From another directory, so that nothing of the checkout is imported.
cd "$room"
"$room/venv/bin/autotrace" --help >/dev/null
echo "$(basename "$wheel") runs from a clean environment and carries ${#objects[@]} BPF object(s)"
