"""The system calls that a sandboxed program has no need for and the kernel's bugs like best.

A classic BPF program (seccomp(2), linux/filter.h), assembled here since a library for it is not worth its weight:
wrong architecture → killed; a listed call → EPERM, or ENOSYS where the C library has an older way to do the
same; else allowed. It is a second fence: the namespaces are the first.
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
KILL: Final = 0x80000000
OFFSET_NUMBER, OFFSET_ARCH = 0, 4
X32_BIT: Final = 0x40000000


class Numbers(NamedTuple):
    """One architecture: how the kernel marks it, and the calls that are refused, by name."""

    arch: int
    refused: dict[str, int]


_COMMON: Final = {
    "fsopen": 430, "fsmount": 432, "fsconfig": 431, "move_mount": 429, "open_tree": 428, "fspick": 433, "mount_setattr": 442,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
}  # fmt: skip
ARCHITECTURES: Final = {
    "x86_64": Numbers(0xC000003E, _COMMON | {
        "ptrace": 101, "mount": 165, "umount2": 166, "pivot_root": 155, "swapon": 167, "swapoff": 168, "reboot": 169,
        "init_module": 175, "delete_module": 176, "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320,
        "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "setns": 308, "perf_event_open": 298,
        "open_by_handle_at": 304, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "userfaultfd": 323,
        "acct": 163, "quotactl": 179, "syslog": 103,
    }),
    "aarch64": Numbers(0xC00000B7, _COMMON | {
        "ptrace": 117, "mount": 40, "umount2": 39, "pivot_root": 41, "swapon": 224, "swapoff": 225, "reboot": 142,
        "init_module": 105, "delete_module": 106, "finit_module": 273, "kexec_load": 104, "kexec_file_load": 294,
        "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97, "setns": 268, "perf_event_open": 241,
        "open_by_handle_at": 265, "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "userfaultfd": 282,
        "acct": 89, "quotactl": 60, "syslog": 116,
    }),
}  # fmt: skip
CLONE3: Final = 435
"""Its flags are behind a pointer where no filter can see them; glibc falls back to clone on ENOSYS."""
CLONE: Final = {"x86_64": 56, "aarch64": 220}
CLONE_NEWUSER: Final = 0x10000000
OFFSET_FIRST_ARGUMENT: Final = 16
JUMP_ANY_SET: Final = 0x45


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def filter_program(machine: str) -> bytes | None:
    """The filter for this kind of processor (`os.uname().machine`), or None for kinds not listed here."""
    numbers = ARCHITECTURES.get(machine)
    if numbers is None:
        return None
    refuse = _instruction(RETURN, ERRNO | errno.EPERM)
    program = [
        _instruction(LOAD, OFFSET_ARCH),
        _instruction(JUMP_EQUAL, numbers.arch, 1, 0),
        _instruction(RETURN, KILL),
        _instruction(LOAD, OFFSET_NUMBER),
    ]
    if machine == "x86_64":
        # The x32 variants of all calls would slip past the numbers below.
        program += [_instruction(JUMP_AT_LEAST, X32_BIT, 0, 1), refuse]
    for number in sorted(numbers.refused.values()):
        program += [_instruction(JUMP_EQUAL, number, 0, 1), refuse]
    program += [_instruction(JUMP_EQUAL, CLONE3, 0, 1), _instruction(RETURN, ERRNO | errno.ENOSYS)]
    program += [
        _instruction(JUMP_EQUAL, CLONE[machine], 0, 3),
        _instruction(LOAD, OFFSET_FIRST_ARGUMENT),
        _instruction(JUMP_ANY_SET, CLONE_NEWUSER, 0, 1),
        refuse,
        _instruction(RETURN, ALLOW),
    ]
    return b"".join(program)
