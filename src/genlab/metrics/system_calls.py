"""A seccomp filter (``man 2 seccomp``) for the system calls of a model's programs.

It refuses calls that programming answers do not need and that sandbox escapes use: mounts,
namespaces, other processes' memory, kernel modules, keys, io_uring, BPF, and sockets that reach further than this
machine's own processes (of which a network namespace would stop neither ``AF_VSOCK`` nor ``AF_ALG``).
"""

import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class _Machine:
    audit: int  # what the kernel calls its architecture
    refused: Sequence[int]
    of_others: Sequence[int]  # reach other processes of the same user
    clone: int
    socket: int
    prlimit: int


# ptrace, mount, umount2, pivot_root, chroot, unshare, setns, process_vm_readv, process_vm_writev, bpf, perf_event_open,
# userfaultfd, add_key, request_key, keyctl, kexec_load, kexec_file_load, init_module, finit_module, delete_module,
# swapon, swapoff, reboot, sethostname, setdomainname, acct, quotactl, name_to_handle_at, open_by_handle_at,
# settimeofday, clock_settime, adjtimex, clock_adjtime, personality, syslog, move_pages, migrate_pages, mbind,
# set_mempolicy, lookup_dcookie, nfsservctl, vhangup, fanotify_init, kcmp; on x86 also iopl, ioperm, modify_ldt, uselib
_X86 = (101, 165, 166, 155, 161, 272, 308, 310, 311, 321, 298, 323, 248, 249, 250, 246, 320, 175, 313, 176, 167, 168,
        169, 170, 171, 163, 179, 303, 304, 164, 227, 159, 305, 135, 103, 279, 256, 237, 238, 212, 180, 153, 300, 312,
        172, 173, 154, 134)  # fmt: skip
_ARM = (117, 40, 39, 41, 51, 97, 268, 270, 271, 280, 241, 282, 217, 218, 219, 104, 294, 105, 273, 106, 224, 225, 142,
        161, 162, 89, 60, 264, 265, 170, 112, 171, 266, 92, 116, 239, 238, 235, 237, 18, 42, 58, 262, 272)  # fmt: skip
# pidfd_send_signal, io_uring_setup, io_uring_enter, io_uring_register, open_tree, move_mount, fsopen, fsconfig,
# fsmount, fspick, pidfd_getfd, mount_setattr, quotactl_fd: the same number everywhere
_ANYWHERE = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 443)
_CLONE3 = 435  # its flags are out of a filter's reach; told that there is no such call, libraries use clone

_MACHINES: Mapping[str, _Machine] = {
    # of others: setsid, setpgid, kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, setpriority, pidfd_open
    "x86_64": _Machine(0xC000003E, (*_X86, *_ANYWHERE), (112, 109, 62, 200, 234, 129, 297, 141, 434), 56, 41, 302),
    "aarch64": _Machine(0xC00000B7, (*_ARM, *_ANYWHERE), (157, 154, 129, 130, 131, 138, 240, 140, 434), 220, 198, 261),
}
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*
_X32 = 0x40000000  # the bit of calls that x86 has twice
_AF_UNIX = 1
_ALLOW, _KILL, _REFUSE, _NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # EPERM, ENOSYS
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # where a call's data stand


def call_filter(alone: bool) -> bytes:
    """``struct sock_filter[]``; empty on machines whose calls are not known here.

    ``alone``: the program sees no process but its own; else also what would reach others, or leave its group, is
    refused.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.byteorder != "little":
        return b""
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, machine.audit), (_RETURN, 0, 0, _KILL),
             (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]  # fmt: skip
    for number in (*machine.refused, *(() if alone else machine.of_others)):
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    lines += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _NO_SUCH_CALL)]
    lines += [
        (_EQUAL, 0, 4, machine.clone),
        (_LOAD, 0, 0, _ARGUMENT),
        (_HAS_BITS, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for call, only in ((machine.socket, _AF_UNIX), (machine.prlimit, 0)):  # of itself alone
        lines += [
            (_EQUAL, 0, 4, call),
            (_LOAD, 0, 0, _ARGUMENT),
            (_EQUAL, 1, 0, only),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
    lines += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
