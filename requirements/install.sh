#!/usr/bin/env bash
# Creates or updates .venv: the pinned requirements, Detectron2, and this project as an editable package. PYTHON
# is the interpreter to create it with (default: python3.11, or else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
unfinished=$venv/.unfinished # exists during an installation; if it remains, .venv is recreated
installed=$venv/.installed   # exists after a successful installation; the Makefile compares its time

fail() {
    echo "error: $1" >&2
    exit 1
}

# The pinned versions need at least this Python.
is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidates=(python3.11 python3)
    if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for python in "${candidates[@]}"; do
        if is_recent "$python"; then
            "$python" -c 'import ensurepip, venv' 2>/dev/null ||
                fail "$python has no venv module: install it (on Debian: apt-get install python3-venv), or use another Python: make PYTHON=/path/to/python3.11"
            return
        fi
    done
    fail "no Python 3.11 or newer (tried: ${candidates[*]}): install one, or give its path: make PYTHON=/path/to/python3.11"
}

make_venv() {
    find_python
    echo "Creating $venv with $python. This takes a few minutes and about 6 GB."
    mkdir -p "$venv"
    touch "$unfinished"
    find "$venv/" -mindepth 1 ! -path "$unfinished" -delete
    "$python" -m venv "$venv"
}

# PATH includes the environment's ninja, which compiles sources in parallel.
pip() { PATH=$PWD/$venv/bin:$PATH "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

install_detectron2() {
    local pins=requirements/detectron2.txt site_packages
    if pip freeze | grep -x "$(grep -o '^sal-detectron2==[^ ]*' "$pins")" >/dev/null; then return; fi
    site_packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pip install --no-deps --only-binary=:all: --python-version 3.10 --implementation cp --abi none \
        --platform any --target "$site_packages" --upgrade --require-hashes -r "$pins"
}

if [[ -e $unfinished ]] || ! is_recent "$venv/bin/python" || ! pip --version >/dev/null 2>&1; then
    make_venv
else
    echo "Updating $venv."
    export PIP_QUIET=1 # most packages are installed already
fi

touch "$unfinished"
rm -f "$installed"
pip install -r requirements/torch.txt
# --no-build-isolation: source distributions are built with the pinned setuptools.
pip install --no-build-isolation -r requirements/runtime.txt -r requirements/dev.txt
pip install --no-deps -r requirements/no-deps.txt
install_detectron2
rm -f projects/SeqFormer/seqformer/_C*.so # it may have been compiled for another PyTorch
pip install --no-build-isolation --no-deps -e .
"$venv/bin/python" -c 'import seqformer'
mv "$unfinished" "$installed"
