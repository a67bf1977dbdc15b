#!/bin/sh
# usage: bench/peers/setup.sh VENV   makes a Python environment with the programs that favor is compared with, if it isn't there.
# Several GB and some minutes with the default index; pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL) say from where.
set -eu
venv=${1:?usage: bench/peers/setup.sh VENV}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
if ! "$venv/bin/python" -c 'import torch, torchvision, transformers, trl, datasets, accelerate, PIL' 2>/dev/null; then
	"$venv/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2 transformers==5.24.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0 pillow==13.0.0
fi
