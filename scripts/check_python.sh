#!/bin/sh
# See that PYTHON is new enough. One that is not there yet is fine: the package step brings it.
#   scripts/check_python.sh PYTHON
[ -x "$1" ] || exit 0
"$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && exit 0
echo "autotrace needs Python 3.11 or newer, and $1 is $("$1" -c 'import platform; print(platform.python_version())');" \
	"use Debian 12, Ubuntu 24.04 or newer, or name another one: make PYTHON=/path/to/python3.11" >&2
exit 1
