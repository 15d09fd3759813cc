#!/bin/sh
# Installs a lock into .venv:  sh bootstrap.sh run  or  sh bootstrap.sh dev
#
# run is requirements.lock: what the pipeline needs. dev is requirements-dev.lock: checks, too.
# PYTHON names the interpreter. A venv that has the checks keeps them.
# The stamps .venv/run and .venv/dev say what is complete. An interrupted call is called again.
set -eu
cd "$(dirname "$0")"

kind=${1:?run or dev}
interpreter=${PYTHON:-python3}
venv=.venv
tools=$venv/bootstrap # A venv of its own for pip and uv: the locks stay exact.

fail() {
  echo "error: $*" >&2
  exit 1
}

trap 'echo "stopped: the same command resumes" >&2; exit 130' INT TERM

if [ "$kind" = run ] && [ -e $venv/dev ]; then
  kind=dev
fi
case $kind in
  run) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) fail "$kind is neither run nor dev" ;;
esac

"$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "$interpreter is not Python 3.11 or newer: name one, as in make PYTHON=python3.12"

rm -f $venv/run $venv/dev
$venv/bin/python -c '' 2>/dev/null || "$interpreter" -m venv --clear --without-pip $venv

make_tools() {
  $tools/bin/python -m pip --version >/dev/null 2>&1 ||
    "$interpreter" -m venv --clear $tools ||
    fail "$interpreter has no pip: install python3-venv, or put uv on the PATH"
}

# Prints the path of a uv that runs. The lock of the checks pins a uv with hashes.
find_uv() {
  for candidate in uv $tools/bin/uv; do
    if "$candidate" --version >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  make_tools >&2
  awk '/^[^ #]/ { uv = /^uv==/ } uv' requirements-dev.lock >$tools/uv.lock
  $tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement $tools/uv.lock >&2 || return 1
  echo $tools/bin/uv
}

# Without bytecode each process compiles what it imports where PYTHONDONTWRITEBYTECODE is set, as
# in many containers: torch then takes twice as long. pip compiles by itself.
install_by_uv() {
  uv=$(find_uv) &&
    "$uv" pip sync --compile-bytecode --python $venv/bin/python --require-hashes "$lock"
}

install_by_pip() {
  make_tools
  $tools/bin/python -m pip --python $venv/bin/python install --disable-pip-version-check \
    --require-hashes --requirement "$lock"
}

echo "Installing $lock into $venv: 6 GB where it is new"
install_by_uv || {
  echo "uv could not install $lock: pip installs the same, in minutes"
  install_by_pip
}

# ianet and pipeline are imported from this folder. PYTHONPATH takes precedence.
folder=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd >"$folder/ianet-project.pth"
# A line of #! takes no path with spaces: the shell starts Python, which reads this line as a text.
cat >$venv/bin/ianet <<END
#!/bin/sh
'''exec' "$PWD/$venv/bin/python" "\$0" "\$@"
' '''
from ianet.cli.main import main

main()
END
chmod +x $venv/bin/ianet

touch $venv/run
if [ "$kind" = dev ]; then
  touch $venv/dev
fi
