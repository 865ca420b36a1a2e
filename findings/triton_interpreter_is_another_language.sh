#!/usr/bin/env bash
# triton 3.7.1: its interpreter refuses kernels that its compiler takes, and takes kernels that its compiler refuses, so that a suite without a GPU needs both.
#
# One way: `mask & (number > 0.0)`, where `number` is a float that was loaded, compiles for a GPU; under TRITON_INTERPRET=1 it raises a TypeError of numpy's `bitwise_and`. The comparison of
# one float is given the float's type when it is spread over the mask's shape (an int's comparison is not). A comparison of a whole vector works: `mask & (vector >= number)`.
# The other way: a name that is an int32 before an `if` and an int64 inside it, such as a `_` for what nobody asks for, runs in the interpreter; the compiler raises an AssertionError, because
# both branches of an `if` must leave a name with one type. triton.compile with GPUTarget("cuda", 90, 32) needs no GPU, so that a suite can ask the compiler, too.
# Seen: interpreter TypeError, True | compiler: True, AssertionError.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 triton==3.7.1 numpy==2.4.1
cd "$folder"
cat > kernels.py <<'PY'
import triton
import triton.language as tl
@triton.jit
def one_float(numbers, found):
    places = tl.arange(0, 4)
    number = tl.load(numbers)
    tl.store(found + places, ((places < 3) & (number > 0.0)).to(tl.int32))
@triton.jit
def two_types(numbers, found):
    unused = tl.load(found)
    if tl.load(numbers) > 0.0:
        unused = tl.load(found).to(tl.int64)
        tl.store(found, 7)
PY
cat > run.py <<'PY'
import os, sys
import torch, triton
import kernels
found = []
for kernel in (kernels.one_float, kernels.two_types):
    try:
        if os.environ.get("TRITON_INTERPRET") == "1":
            kernel[(1,)](torch.ones(1), torch.zeros(4, dtype=torch.int32))
        else:
            from triton.backends.compiler import GPUTarget
            from triton.compiler import ASTSource
            source = ASTSource(kernel, signature={"numbers": "*fp32", "found": "*i32"})
            assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
        found.append("True")
    except Exception as error:
        said = repr(error) + repr(error.__cause__)
        found.append(next((one for one in ("TypeError", "AssertionError") if one in said), said))
print(*found, sep=", ")
PY
interpreted=$(TRITON_INTERPRET=1 "$python" run.py)
compiled=$(TRITON_CACHE_DIR="$folder/cache" "$python" run.py)
echo "interpreter: $interpreted | compiler: $compiled"
[ "$interpreted" = "TypeError, True" ] && [ "$compiled" = "True, AssertionError" ]
