#!/usr/bin/env python3
"""hang.py THREAD PID: stops the one thread of a process that has this name, until the process is gone.
hang.py THREAD COMMAND...: starts the command, and stops its thread after a line on standard input. Ends as the command does.

What a thread that hangs looks like from outside. THREAD is `main` or a name in /proc/PID/task/*/comm. ptrace(2), PTRACE_SEIZE.
"""
import ctypes
import os
import signal
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_O_EXITKILL, PR_SET_PDEATHSIG, WALL = 0x4206, 0x4207, 0x100000, 1, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def thread_of(pid, name):
    tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    found = [task for task in tasks if open(f"/proc/{pid}/task/{task}/comm").read().strip() == name] if name != "main" else [pid]
    return found[0] if found else sys.exit(f"hang: process {pid} has no thread {name}")


def stop(thread):
    for request, data in ((PTRACE_SEIZE, PTRACE_O_EXITKILL), (PTRACE_INTERRUPT, None)):
        if libc.ptrace(request, thread, None, data) != 0:
            sys.exit(f"hang: ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")


def follow(thread):
    """A thread that stopped stays so until its tracer says otherwise, which is never; its end is to be waited for like a child's."""
    while True:
        _, status = os.waitpid(thread, WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return status
        print(f"stopped by {os.WSTOPSIG(status)}", flush=True)


def start(command):
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(command[0], command)
    return pid


name, rest = sys.argv[1], sys.argv[2:]
if rest[0].isdigit():
    thread = thread_of(int(rest[0]), name)
    stop(thread)
    follow(thread)
else:
    child = start(rest)
    sys.stdin.readline()
    thread = thread_of(child, name)
    stop(thread)
    status = follow(thread)
    if thread != child:
        status = os.waitpid(child, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status) % 256)
