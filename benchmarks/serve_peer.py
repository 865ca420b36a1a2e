"""llama.cpp's server as a process of its own: python -m benchmarks.serve_peer FILE CONFIG ...

Settings are its defaults, but for the slots, the context of each, the threads, and no reuse of
earlier prompts. It prints its address, and ends with its standard input.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.llamacpp import Peer, peer_configs


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("config", help="a name of benchmarks.llamacpp.peer_configs")
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    config = next(one for one in peer_configs(options.draft) if one.name == options.config)
    with Peer(
        options.file,
        config,
        threads=options.threads,
        context_length=options.slots * options.context,
        num_slots=options.slots,
        port=options.port,
    ) as peer:
        print(peer.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
