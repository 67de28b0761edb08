#!/usr/bin/env python3
"""hang.py PID: stops the process's first thread, which takes frames through the network, and no other, until the process is gone.

What a hung inference looks like from outside: the socket answers, the camera is read, and no frame is done. ptrace(2), PTRACE_SEIZE.
"""
import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
pid = int(sys.argv[1])
for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
    if libc.ptrace(request, pid, None, None) != 0:
        sys.exit(f"hang: ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")
# a thread that stopped stays so until its tracer says otherwise, which is never; its end is to be waited for like a child's
while True:
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) or os.WIFSIGNALED(status):
        break
    print(f"stopped by {os.WSTOPSIG(status)}", flush=True)
