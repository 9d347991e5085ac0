#!/bin/bash
# Install the Debian (or Ubuntu) packages that autotrace and its demo need, with the argument `tests` those of its
# tests too; does nothing if all are there.
set -euo pipefail

required=(
	python3 python3-venv   # autotrace itself
	libbpf1                # loads the BPF objects
	clang llvm libbpf-dev  # build them
	clang-format           # make lint
	gcc libc6-dev python3-dev  # compile the hot modules
	ca-certificates        # for pip, npm
	nginx openssl          # the demo shop's front, its certificate
)
# Used by the benchmark and by people; not every release has them.
wanted=(wrk bpftool)

if [ "${1:-}" = tests ]; then
	required+=(
		curl haproxy                    # programs that the tests trace
		iproute2                        # network namespaces
		nghttp2-client nghttp2-server   # HTTP/2 without TLS
		g++ libgrpc++-dev               # the gRPC peer in C++
		qemu-system-x86 busybox-static  # other kernels in virtual machines
	)
	# For the gRPC peers in Java and in Rust. Debian 12 has the Rust that browsers are built with as cargo-web, beside
	# a cargo that is too old; later releases have a cargo that is new enough.
	command -v javac >/dev/null && command -v mvn >/dev/null || required+=(default-jdk-headless maven)
	# Any Rust that is there stays: cargo-web would take the place of Debian's older one.
	if ! PATH=$PATH:~/.cargo/bin command -v cargo >/dev/null && ! command -v rustc >/dev/null; then
		grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release && required+=(cargo-web) || required+=(cargo)
	fi
fi

# What the machine's owner installed in another way is used as it is.
command -v node >/dev/null && command -v npm >/dev/null || required+=(nodejs npm)
[ -n "${GO:-}" ] || required+=(golang-go)

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing() {
	for package; do
		installed "$package" || echo "$package"
	done
}

if ! command -v apt-get >/dev/null; then
	echo "This set-up knows Debian and Ubuntu only; install these by hand, then run make again with" \
		"PACKAGES=by-hand: ${required[*]} ${wanted[*]}" >&2
	exit 1
fi

mapfile -t needed < <(missing "${required[@]}")
mapfile -t optional < <(missing "${wanted[@]}")
stamp=build/stamps/optional-packages
if [ ${#needed[@]} -eq 0 ] && { [ ${#optional[@]} -eq 0 ] || [ -e "$stamp" ]; }; then
	exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
	if [ ${#needed[@]} -eq 0 ]; then
		exit 0
	fi
	echo "Packages are missing and only root can install them: ${needed[*]}. Run make with sudo." >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8

# A service that a package brings must not start: nginx would take port 80. Debian asks policy-rc.d; 101 means no.
policy=/usr/sbin/policy-rc.d
aside=$policy.before-autotrace
put_policy_back() {
	if [ -e "$aside" ]; then
		mv "$aside" "$policy"
	elif grep -qs 'autotrace set-up' "$policy"; then
		rm "$policy"
	fi
}
put_policy_back
trap put_policy_back EXIT
if [ -e "$policy" ]; then
	mv "$policy" "$aside"
fi
printf '#!/bin/sh\n# Made by the autotrace set-up for a moment; remove it if you find it.\nexit 101\n' >"$policy"
chmod 755 "$policy"

for attempt in 1 2 3; do
	apt-get -q update && break
	if [ "$attempt" -eq 3 ]; then
		echo "The package lists cannot be fetched; check the network and /etc/apt/sources.list." >&2
		exit 1
	fi
	sleep $((attempt * 5))
done

mapfile -t absent < <(missing nginx-common haproxy)
available=()
for package in "${optional[@]}"; do
	# Not through a pipe: one that grep -q closes early is a failure of apt-cache.
	policies=$(apt-cache policy "$package")
	if [[ $policies =~ Candidate:\ [^\(] ]]; then
		available+=("$package")
	else
		echo "There is no package $package here; going on without it."
	fi
done
apt-get -q -y --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install \
	"${needed[@]}" "${available[@]}"

# Nor must it start at the next boot, where it was not there before.
for package in "${absent[@]}"; do
	service=${package%-common}
	if ! installed "$package"; then
		continue
	elif command -v systemctl >/dev/null; then
		systemctl --quiet disable "$service.service"
	else
		update-rc.d "$service" disable
	fi
done
mkdir -p "$(dirname "$stamp")"
touch "$stamp"
