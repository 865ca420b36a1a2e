"""A socket between two processes of one host that carries whole messages, in order."""

import contextlib
import select
import socket
import struct

__all__ = ["SocketWire"]

_LENGTH = struct.Struct("<Q")
_CHUNK = 1 << 16


class SocketWire:
    """One end of a stream socket; a message is one write, length first.

    One thread sends and one receives; `end` is for any.

    Args:
        sock: Connected.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._read = bytearray()

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        try:
            self._socket.sendall(_LENGTH.pack(len(message)) + message)
        except BaseException:
            # Part of it may be sent: nothing that follows could be told from the rest.
            self.end()
            raise

    def receive(self) -> bytes:
        """Wait for a message.

        Raises:
            EOFError: The other end is gone, or this one was ended.
        """
        (count,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return self._exactly(count)

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to receive, an end included; whether there is in time."""
        if self._read:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1000 * timeout_s))

    def fileno(self) -> int:
        """The socket's, for whoever waits for several."""
        return self._socket.fileno()

    def end(self) -> None:
        """Let the other process, and any thread of this one that waits here, find the end."""
        with contextlib.suppress(OSError):  # ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; other processes that hold it keep it."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            try:
                found = self._socket.recv(_CHUNK)
            except OSError as error:
                # One that is killed with something unread resets the connection.
                raise EOFError(str(error)) from error
            if not found:
                raise EOFError("the other end is gone")
            self._read += found
        taken = bytes(self._read[:count])
        del self._read[:count]
        return taken
