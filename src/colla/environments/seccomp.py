"""The system calls that a sandboxed program has no need for and the kernel's bugs like best.

A classic BPF program (seccomp(2), linux/filter.h), assembled here since a library for it is not worth its weight:
wrong architecture → killed; a listed call → EPERM, or ENOSYS where the C library has an older way to do the
same; else allowed. In the sandbox it is a second fence: the namespaces are the first. Beside Landlock, which has no say on
some things, it is `alone`: sockets are TCP or nothing, so that neither the owner's services behind Unix sockets nor UDP are reached; what
changes files by their path without opening them, or other processes of the same user, is refused.
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
ALONE: Final = {
    "x86_64": {
        "chmod": 90, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "lchown": 94, "fchownat": 260, "setxattr": 188,
        "lsetxattr": 189, "removexattr": 197, "lremovexattr": 198, "setxattrat": 463, "removexattrat": 466, "utime": 132,
        "utimes": 235, "futimesat": 261, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "setpriority": 141,
        "ioprio_set": 251, "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314, "migrate_pages": 256,
        "move_pages": 279, "kcmp": 312, "process_madvise": 440, "process_mrelease": 448, "pidfd_getfd": 438,
        "fanotify_init": 300, "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305,
        "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "chroot": 161, "vhangup": 153,
    },
    "aarch64": {
        "fchmodat": 53, "fchmodat2": 452, "fchownat": 54, "setxattr": 5, "lsetxattr": 6, "removexattr": 14,
        "lremovexattr": 15, "setxattrat": 463, "removexattrat": 466, "shmget": 194, "semget": 190, "msgget": 186,
        "mq_open": 180, "setpriority": 140, "ioprio_set": 30, "sched_setscheduler": 119, "sched_setparam": 118,
        "sched_setattr": 274, "migrate_pages": 238, "move_pages": 239, "kcmp": 272, "process_madvise": 440,
        "process_mrelease": 448, "pidfd_getfd": 438, "fanotify_init": 262, "settimeofday": 170, "clock_settime": 112,
        "adjtimex": 171, "clock_adjtime": 266, "sethostname": 161, "setdomainname": 162, "chroot": 51, "vhangup": 58,
    },
}  # fmt: skip
"""Refused beside Landlock only, whatever the arguments are."""
ARGUED: Final = {
    "x86_64": {
        "socket": 41, "socketpair": 53, "sendto": 44, "sendmsg": 46, "sendmmsg": 307, "prlimit64": 302,
        "sched_setaffinity": 203, "utimensat": 280,
    },
    "aarch64": {
        "socket": 198, "socketpair": 199, "sendto": 206, "sendmsg": 211, "sendmmsg": 269, "prlimit64": 261,
        "sched_setaffinity": 122, "utimensat": 88,
    },
}  # fmt: skip
"""Refused beside Landlock for some of their arguments."""
CLONE3: Final = 435
"""Its flags are behind a pointer where no filter can see them; glibc falls back to clone on ENOSYS."""
CLONE: Final = {"x86_64": 56, "aarch64": 220}
CLONE_NEWUSER: Final = 0x10000000
OFFSET_FIRST_ARGUMENT, ARGUMENT_BYTES = 16, 8
JUMP_ANY_SET: Final = 0x45
AND: Final = 0x54
AF_INET, AF_INET6, SOCK_STREAM, SOCK_DGRAM, SOCK_TYPE_MASK, IPPROTO_TCP = 2, 10, 1, 2, 0xF, 6
MSG_FASTOPEN: Final = 0x20000000
"""Connects without connect(2), so that not every Landlock sees it."""


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def filter_program(machine: str, alone: bool = False) -> bytes | None:
    """The filter for this kind of processor (`os.uname().machine`), or None for kinds not listed here.

    `alone`: for a program beside Landlock, without namespaces of its own.
    """
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
    for number in sorted([*numbers.refused.values(), *(ALONE[machine].values() if alone else ())]):
        program += [_instruction(JUMP_EQUAL, number, 0, 1), refuse]
    program += [_instruction(JUMP_EQUAL, CLONE3, 0, 1), _instruction(RETURN, ERRNO | errno.ENOSYS)]
    for name, number in ARGUED[machine].items() if alone else ():
        judged = _judgement(name, refuse)
        program += [_instruction(JUMP_EQUAL, number, 0, len(judged)), *judged]
    program += [
        _instruction(JUMP_EQUAL, CLONE[machine], 0, 3),
        _instruction(LOAD, OFFSET_FIRST_ARGUMENT),
        _instruction(JUMP_ANY_SET, CLONE_NEWUSER, 0, 1),
        refuse,
        _instruction(RETURN, ALLOW),
    ]
    return b"".join(program)


def _judgement(name: str, refuse: bytes) -> list[bytes]:
    """What is done with one of `ARGUED`: looks at its arguments and returns."""
    allow = _instruction(RETURN, ALLOW)

    def argument(index: int, upper: int = 0) -> bytes:
        return _instruction(LOAD, OFFSET_FIRST_ARGUMENT + ARGUMENT_BYTES * index + 4 * upper)

    def flags(index: int) -> list[bytes]:
        return [argument(index), _instruction(JUMP_ANY_SET, MSG_FASTOPEN, 1, 0), allow, refuse]

    match name:
        case "socket":
            return [
                argument(0),
                _instruction(JUMP_EQUAL, AF_INET, 1, 0),
                _instruction(JUMP_EQUAL, AF_INET6, 0, 6),
                argument(1),
                _instruction(AND, SOCK_TYPE_MASK),
                _instruction(JUMP_EQUAL, SOCK_STREAM, 0, 3),
                argument(2),
                _instruction(JUMP_EQUAL, 0, 2, 0),
                _instruction(JUMP_EQUAL, IPPROTO_TCP, 1, 0),
                refuse,
                allow,
            ]
        case "socketpair":  # One of datagrams could be connected elsewhere afterwards.
            return [
                argument(1),
                _instruction(AND, SOCK_TYPE_MASK),
                _instruction(JUMP_EQUAL, SOCK_DGRAM, 0, 1),
                refuse,
                allow,
            ]
        case "sendto" | "sendmmsg":
            return flags(3)
        case "sendmsg":
            return flags(2)
        case "prlimit64" | "sched_setaffinity":  # One's own only.
            return [argument(0), _instruction(JUMP_EQUAL, 0, 1, 0), refuse, allow]
        case "utimensat":  # Of a file that is open, where no path is given.
            return [
                argument(1),
                _instruction(JUMP_EQUAL, 0, 1, 0),
                refuse,
                argument(1, 1),
                _instruction(JUMP_EQUAL, 0, 1, 0),
                refuse,
                allow,
            ]
        case _:
            raise ValueError(f"nothing is known of the arguments of {name}")
