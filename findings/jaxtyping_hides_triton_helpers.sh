#!/usr/bin/env bash
# jaxtyping 0.3.11 with triton 3.7.1: under jaxtyping's import hook, a kernel that calls another kernel fails in Triton's interpreter with a NameError.
#
# The hook puts its decorator beneath `@triton.jit`, so that Triton is given jaxtyping's wrapper. TRITON_INTERPRET=1 is how kernels are tested without a GPU;
# interpreter.py, `FunctionRewriter._compile_and_exec`, reads the kernel's source again and runs it with `self.fn.__globals__`. Those are the globals of
# jaxtyping/_decorator.py, in which neither the module's other kernels nor its constants are known. The names that Triton puts there itself (`tl`) work, so a kernel alone passes.
# The way out is `@typing.no_type_check` above `@triton.jit`: the hook leaves such functions alone.
# Seen: without the hook 4.0; with it NameError("name 'twice' is not defined"); with it and no_type_check 4.0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 triton==3.7.1 jaxtyping==0.3.11 beartype==0.23.1 numpy==2.4.1
cd "$folder"
for way in plain spared; do
  mark=$([ $way = spared ] && echo "@typing.no_type_check" || echo "")
  cat > kernels_$way.py <<PY
import typing
import torch, triton
import triton.language as tl
$mark
@triton.jit
def twice(x):
    return x + x
$mark
@triton.jit
def kernel(numbers):
    tl.store(numbers, twice(tl.load(numbers)))
def run():
    numbers = torch.tensor([2.0])
    kernel[(1,)](numbers)
    return numbers.item()
PY
done
TRITON_INTERPRET=1 "$python" - <<'PY'
import importlib, sys
from jaxtyping import install_import_hook
def result(name, hook):
    sys.modules.pop(name, None)
    if hook:
        with install_import_hook(name, "beartype.beartype"):
            module = importlib.import_module(name)
    else:
        module = importlib.import_module(name)
    try:
        return module.run()
    except Exception as error:
        return repr(error)
found = [result("kernels_plain", False), result("kernels_plain", True), result("kernels_spared", True)]
print("without the hook:", found[0], "| with it:", found[1], "| with it and no_type_check:", found[2])
sys.exit(0 if found[0] == found[2] == 4.0 and "name 'twice' is not defined" in str(found[1]) else 1)
PY
