#!/usr/bin/env bash
# k-diffusion and smalldiffusion, for the benchmarks only. They ask for torchvision, whose PyPI
# build breaks other packages beside a CPU torch, so they go into a folder of their own, without
# their dependencies; peers.py looks there and imports nothing of them but the samplers.
#
#     benchmarks/peers.sh [PYTHON]          then run any benchmark with the same python
#
# The folder is .cache/peers, ignored by git; remove it to be without them again.
set -u
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
folder=.cache/peers
for package in k-diffusion==0.1.1.post1 smalldiffusion==0.5.0; do
    if "$python" -m pip install --quiet --no-deps --upgrade --target "$folder" "$package"; then
        echo "$package: in $folder"
    else
        echo "$package: could not be installed; the benchmarks leave it out" >&2
    fi
done
