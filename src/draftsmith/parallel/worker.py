"""A process that is another rank: `python -m draftsmith.parallel.worker ORDERS WATCH`.

Rank 0 starts it, with the numbers of two sockets that it inherits.
"""

import os
import signal
import socket
import sys

from draftsmith.parallel.watch import Guard
from draftsmith.parallel.wire import SocketWire

__all__ = ["main"]


def main() -> None:
    """Run a rank that rank 0 has started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders, watch = (SocketWire(socket.socket(fileno=int(one))) for one in sys.argv[1:3])
    guard = Guard(watch)
    # Once the guard is there: importing torch takes seconds, in which rank 0 may end.
    from draftsmith.parallel.following import work
    from draftsmith.parallel.meeting import Wires

    work(Wires(orders, watch), guard)
    # Nothing of this process is left to be tidied up, and a device's driver could hang in it.
    os._exit(0)


if __name__ == "__main__":
    main()
