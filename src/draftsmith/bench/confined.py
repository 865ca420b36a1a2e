"""Run as a program: confines its own process, then runs code of a model, or the test of it.

Nothing of draftsmith is imported here: `python -I confined.py ROLE`, with a job as JSON on standard
input. The code and its test are two processes. The code's answers its calls, by values over a
socket; the test's alone holds the pipe of the verdict, so that no code can write one.

Roles: `probe` says which confinements hold; `code` runs the code and serves its function; `test`
runs the test with a stand-in for it.
"""

import ctypes
import json
import math
import operator
import os
import platform
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

_MOST_BYTES = 1 << 26
"""Of one message."""


# --- confinement ------------------------------------------------------------------------------

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY_NOSUID = 442, -100, 0x8000, 3
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_FILTER = 4, 38, 22, 2
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_THREAD = 0x10000
# The architecture as seccomp names it; clone; and what no program needs: fork, vfork, ptrace,
# unshare, setns, mount, bpf, process_vm_writev.
_CALLS = {
    "x86_64": (0xC000003E, 56, (57, 58, 101, 272, 308, 165, 321, 311)),
    "aarch64": (0xC00000B7, 220, (117, 97, 268, 40, 280, 271)),
}
_CLONE3 = 435


def confine(job: dict[str, Any]) -> dict[str, bool]:
    """Confine this process as far as the system lets it; say what holds.

    Args:
        job: With `has_namespaces`, `folder` and the limits.
    """
    held = {"network": False, "processes": False, "files": False, "disk": False}
    if job["has_namespaces"]:
        # What `unshare` gave before this program began.
        held["network"] = held["processes"] = True
        held["files"], held["disk"] = _mount(job["folder"], job["disk_bytes"])
    os.chdir(job["folder"])
    _limit(job)
    held["new processes"] = sys.platform == "linux" and _forbid_calls()
    return held


def _mount(folder: str, disk_bytes: int) -> tuple[bool, bool]:
    """Make all files read-only, and the folder a small disk in memory."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(kind: bytes | None, place: bytes, flags: int, options: bytes | None = None) -> bool:
        return libc.mount(kind, place, kind, ctypes.c_ulong(flags), options) == 0

    if not mount(None, b"/", _MS_REC | _MS_PRIVATE):
        return False, False
    mount(b"proc", b"/proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    attributes = struct.pack("<4Q", _ATTR_RDONLY_NOSUID, 0, 0, 0)
    where = ctypes.c_long(_AT_FDCWD), b"/", ctypes.c_long(_AT_RECURSIVE)
    size = ctypes.c_size_t(len(attributes))
    is_fixed = libc.syscall(ctypes.c_long(_MOUNT_SETATTR), *where, attributes, size) == 0
    size_option = f"size={disk_bytes},nr_inodes=1000,mode=700".encode()
    has_disk = mount(b"tmpfs", os.fsencode(folder), _MS_NOSUID | _MS_NODEV, size_option)
    return is_fixed, has_disk


def _limit(job: dict[str, Any]) -> None:
    import resource

    for name, limit in (
        ("AS", job["memory_bytes"]),
        ("CPU", job["seconds"]),
        ("FSIZE", job["file_bytes"]),
        ("CORE", 0),
        ("NOFILE", 256),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _forbid_calls() -> bool:
    """No process but this one, no privilege, no sight into others: dropped, and by seccomp."""
    libc = ctypes.CDLL(None, use_errno=True)
    if platform.machine() not in _CALLS:
        return False
    # In a namespace of its own this process is root of it.
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    if hasattr(libc, "capset"):
        libc.capset(header, bytes(24))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    rules = _rules(*_CALLS[platform.machine()])
    held = ctypes.create_string_buffer(b"".join(rules))
    program = struct.pack("@HP", len(rules), ctypes.addressof(held))
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, program, 0, 0) == 0


def _rules(architecture: int, clone: int, forbidden: tuple[int, ...]) -> list[bytes]:
    """The filter, as the kernel's BPF: (code, jump if so, jump if not, number)."""
    load, equal, set_bits, give = 0x20, 0x15, 0x45, 0x06
    allow, refuse, unknown, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    rules = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, architecture),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # the call
    ]
    for number in forbidden:
        rules += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    rules += [
        (equal, 0, 1, _CLONE3),
        (give, 0, 0, unknown),  # so that the C library takes clone, whose flags can be read
        (equal, 0, 4, clone),
        (load, 0, 0, 16),  # its flags
        (set_bits, 1, 0, _CLONE_THREAD),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
        (give, 0, 0, allow),
    ]
    return [struct.pack("<HBBI", *rule) for rule in rules]


# --- values between the two processes ---------------------------------------------------------


def encode(value: object) -> object:
    """A plain value as JSON; what is none is refused.

    Raises:
        TypeError: If it holds an object of another kind.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return {"float": float.hex(float(value))}
    if isinstance(value, complex):
        return {"complex": [encode(value.real), encode(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[encode(one), encode(other)] for one, other in value.items()]}
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            items: Any = value
            return {name: [encode(one) for one in items]}
    return {"int": hex(operator.index(value))}  # type: ignore[call-overload] # TypeError otherwise


def decode(value: Any) -> Any:  # noqa: ANN401 - any plain value
    """What `encode` wrote.

    Raises:
        ValueError: If it did not write this.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("no value")
    ((name, content),) = value.items()
    if name in _SEQUENCES:
        return _SEQUENCES[name](decode(one) for one in content)
    return _DECODERS[name](content)


_SEQUENCES: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float.fromhex,
    "int": lambda text: int(text, 16),
    "complex": lambda pair: complex(decode(pair[0]), decode(pair[1])),
    "bytes": bytes.fromhex,
    "dict": lambda pairs: {decode(one): decode(other) for one, other in pairs},
}


class Line:
    """Messages over a socket."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)

    def say(self, message: object) -> None:
        """Send one message."""
        data = json.dumps(message).encode()
        self._socket.sendall(struct.pack("<I", len(data)) + data)

    def hear(self) -> Any:  # noqa: ANN401 - what the other said
        """The next message.

        Raises:
            ConnectionError: If the other side is gone.
        """
        (length,) = struct.unpack("<I", self._exactly(4))
        if length > _MOST_BYTES:
            raise ConnectionError("a message is too long")
        return json.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            part = self._socket.recv(min(count, 1 << 16))
            if not part:
                raise ConnectionError("the other side is gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


# --- roles ------------------------------------------------------------------------------------


def run_code(job: dict[str, Any]) -> str:
    """Run the code to its end, then answer calls; says how it ended, which the test never does."""
    line = Line(job["line"])
    try:
        line.hear()  # the test's process is confined by now: the code has nothing to race for
        names: dict[str, Any] = {"__name__": "program"}
        exec(compile(job["code"], "program.py", "exec"), names)
        line.say("ready")
        while True:
            arguments, keywords = map(decode, line.hear())
            line.say(_answer(names[job["entry_point"]], arguments, keywords))
    except ConnectionError:
        return "served"
    except SystemExit:
        return "exited"
    except MemoryError:
        return "out of memory"
    except BaseException:
        return "failed"


def _answer(function: Callable[..., object], arguments: Any, keywords: Any) -> list[object]:  # noqa: ANN401
    try:
        return ["returned", encode(function(*arguments, **keywords))]
    except (SystemExit, MemoryError):
        raise
    except BaseException as error:
        return ["raised", type(error).__name__]


def run_test(job: dict[str, Any]) -> str:
    """Run the test, with a stand-in that asks the code's process."""
    line = Line(job["line"])

    def candidate(*arguments: object, **keywords: object) -> object:
        line.say([encode(arguments), encode(keywords)])
        how, value = line.hear()
        if how != "returned":
            raise AssertionError(f"the function raised {value}")
        return decode(value)

    try:
        line.say("begin")
        line.hear()
        # The head has what the test may use beside the function: imports, helpers.
        names: dict[str, Any] = {"__name__": "test"}
        exec(compile(job["head"], "head.py", "exec"), names)
        names[job["entry_point"]] = candidate
        exec(compile(job["test"], "test.py", "exec"), names)
        names["check"](candidate)
    except ConnectionError:
        return "gone"
    except BaseException:
        return "failed"
    return "passed"


def main() -> NoReturn:
    """Confine, run, say, end."""
    role, job = sys.argv[1], json.loads(sys.stdin.buffer.read())
    sys.argv[1:] = []
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    held = confine(job)
    if role == "probe":
        said = json.dumps(held)
    elif held != job["held"]:
        said = "not confined"
    else:
        said = {"code": run_code, "test": run_test}[role](job)
    os.write(job["said"], said.encode())
    os._exit(0)


if __name__ == "__main__":
    assert math  # imported before the limits hold, as most programs want it
    main()
