"""The fence around a program where there is no bubblewrap: Landlock, no capability, a filter of system calls.

Source: landlock(7), include/uapi/linux/landlock.h; capabilities(7); seccomp(2). It holds for the program and all that it
starts, and can only be made narrower. Weaker than the sandbox: the program shares the computer's processes, network and
clock, and is only refused the use of them; names, sizes and times of files are not hidden by Landlock at all.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from typing import Any

ABI_LEAST = 6
"""The first that keeps signals and abstract sockets in (Linux 6.12); TCP came with 4. With less there is no fence."""
CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # The same on every architecture.
VERSION_FLAG, BENEATH, PORT = 1, 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, EVERYTHING = 1 << 14, (1 << 16) - 1
BIND, CONNECT = 1, 2
ABSTRACT_SOCKETS, SIGNALS = 1, 2
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 22, 24, 38, 47
MODE_FILTER, AMBIENT_CLEAR = 2, 4
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES_MAX = 64
INSTRUCTION_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """Which Landlock the kernel has; 0 for none."""
    if sys.platform != "linux":
        return 0
    abi: int = _libc.syscall(CREATE, None, 0, VERSION_FLAG)
    return max(0, abi)


def fence_in(fence: dict[str, Any], port: int) -> None:
    """Fence this process in for ever. Raises `OSError`: then the program must not be started.

    `read` and `write` are paths (those that are missing are left out), `connect` says whether the program may connect to
    its own port, `ways` are further ports that it may connect to, `filter` is the seccomp program in hexadecimal digits.
    """
    rules = _checked(
        _libc.syscall(
            CREATE, struct.pack("QQQ", EVERYTHING, BIND | CONNECT, ABSTRACT_SOCKETS | SIGNALS), 24, 0
        )
    )
    for path in fence["read"]:
        _allow(rules, path, EXECUTE | READ_FILE | READ_DIR)
    for path in fence["write"]:
        _allow(rules, path, EVERYTHING)
    _checked(_libc.syscall(ADD_RULE, rules, PORT, struct.pack("QQ", BIND, port), 0))
    for reached in [*fence["ways"], *([port] if fence["connect"] else [])]:
        _checked(_libc.syscall(ADD_RULE, rules, PORT, struct.pack("QQ", CONNECT, reached), 0))
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(RESTRICT, rules, 0))
    os.close(rules)
    _drop_capabilities()
    _filter_calls(bytes.fromhex(fence["filter"]))


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE
        _checked(_libc.syscall(ADD_RULE, rules, BENEATH, struct.pack("=Qi", rights, fd), 0))
    finally:
        os.close(fd)


def _drop_capabilities() -> None:
    """Also those that a program started by root would get back with its next exec."""
    for number in range(CAPABILITIES_MAX):
        if _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break  # Beyond the last one that the kernel knows, or there was none to drop.
    _checked(_libc.prctl(PR_CAP_AMBIENT, AMBIENT_CLEAR, 0, 0, 0))
    _checked(_libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)))


def _filter_calls(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // INSTRUCTION_BYTES
    described = struct.pack(
        "HP" if ctypes.sizeof(ctypes.c_void_p) == 8 else "HI", count, ctypes.addressof(code)
    )
    _checked(_libc.prctl(PR_SET_SECCOMP, MODE_FILTER, described, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the fence cannot be made: {os.strerror(number)}")
    return result
