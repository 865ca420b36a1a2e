#!/usr/bin/env bash
# torch 2.13.0 (and 2.11.0): `torch.cuda.graph` captures on the first GPU whatever the current one is, unless it is given a stream.
#
# torch/cuda/graphs.py, `graph.__init__`: `default_capture_stream` is an attribute of the class, made by `torch.cuda.Stream()` at the first capture of the process. A stream belongs to the device that was
# current then, and entering it (`torch.cuda.stream`) makes that device the current one. So a model on cuda:1 that is captured after one on cuda:0, inside `with torch.cuda.device(1)`, is launched on cuda:0.
# Seen on two H200 (torch 2.11.0, Triton 3.6.0): Triton's launcher refused the tensors of cuda:1, "Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)".
# The way out is `torch.cuda.graph(graph, stream=torch.cuda.Stream(device))`.
# Here, without a GPU, `torch.cuda.Stream` is a stand-in that notes the current device, which is 0 and then 1.
# Seen: streams made 1, device of the second capture's stream 0; with a stream of its own 1.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 numpy==2.4.1
cd "$folder"
"$python" - <<'PY'
import sys
import torch

current, made = [0], []
class Stream:
    def __init__(self, device=None):
        self.device_index = current[0] if device is None else device
        made.append(self)
torch.cuda.Stream = Stream
torch.cuda.stream = lambda stream: stream
torch.cuda.graph(cuda_graph=None)
current[0] = 1
second = torch.cuda.graph(cuda_graph=None)
num_made = len(made)
own = torch.cuda.graph(cuda_graph=None, stream=Stream(1))
found = num_made, second.capture_stream.device_index, own.capture_stream.device_index
print("torch", torch.__version__, "streams made:", found[0], "second capture's device:", found[1], "with its own stream:", found[2])
sys.exit(0 if found == (1, 0, 1) else 1)
PY
