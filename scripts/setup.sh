#!/usr/bin/env bash
# Prepares this checkout: .venv with the package in it, and the Debian packages that are missing.
#
#   scripts/setup.sh run    what `locum demo` needs
#   scripts/setup.sh test   that, the developer's tools, and the programs that the tests run
#
# PYTHON names the interpreter to build on, instead of the one that is looked for.
#
# As root on a Debian it installs what is missing; anybody else is told, line by line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
    run) extras="demo" programs=() ;;
    test) extras="demo,dev"
        programs=(postgres nft linux.uml modprobe apache2 gnutls-cli gnutls-serv)
        programs+=(p11-kit pkcs11-tool softhsm2-util softhsm2.so) ;;
    *) echo "usage: scripts/setup.sh run|test" >&2; exit 2 ;;
esac

# The servers of the demo and their clients; what gives a server a remote key; strongSwan in parts, and what makes a
# network for it.
programs+=(openssl nginx curl p11-kit-client.so pkcs11-engine)
programs+=(charon-systemd strongswan-openssl strongswan-libipsec ip ping nsenter setpriv unshare)

say() { echo "setup: $*" >&2; }

# The distribution's own interpreter, where it is new enough: it is built with profile-guided optimisation, and runs
# this program a fifth faster than one that is not, as a `python3` earlier in the PATH may be.
python=python3
for each in ${PYTHON:+"$PYTHON"} /usr/bin/python3; do
    if "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$each"
        break
    fi
done

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    if ! has_venv && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing python3-venv (apt)"
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            python3 python3-venv ca-certificates >/dev/null
    fi
    if ! has_venv; then
        say "$python with its venv module is needed; on Debian: sudo apt-get install python3-venv"
        exit 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        say "$python is $("$python" --version); 3.11 or newer is needed"
        exit 1
    fi
    say "creating .venv"
    "$python" -m venv .venv
fi

say "installing locum[$extras] into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"

# Not fatal: whatever needs a program that is not there says so itself.
.venv/bin/python -m locum.demo.programs "${programs[@]}" || true

touch .venv/bin/.ready-run
[ "$1" = run ] || touch .venv/bin/.ready-test
