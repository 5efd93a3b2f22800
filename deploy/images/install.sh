#!/bin/sh
# install.sh VENV ARGUMENT...: a new VENV in which pip installs. pip runs out of its wheel in /wheelhouse, so that neither
# base nor image needs it, and asks no index; where there is no wheelhouse, the base's own pip asks the one it is set to.
set -eu
PYTHON=${PYTHON:-python3.11}
venv=$1; shift
"$PYTHON" -m venv --without-pip "$venv"
if ls /wheelhouse/pip-*.whl >/dev/null 2>&1; then
  set -- --no-index --find-links /wheelhouse "$@"
  pip="$(ls /wheelhouse/pip-*.whl)/pip"
  "$PYTHON" "$pip" --python "$venv/bin/python" install --no-cache-dir --no-compile --no-deps "$@"
else
  "$PYTHON" -m pip --python "$venv/bin/python" install --no-cache-dir --no-compile --no-deps "$@"
fi
