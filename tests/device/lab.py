#!/usr/bin/env python3
"""Boots the machine of make-root.sh with a payload laid over its root, and brings back what its /test/run.sh left.

    lab.py WORK PAYLOAD OUT [--limit SECONDS] [--cpu cortex-a76]

The guest talks over a virtio port: every line is printed here and kept in OUT/log.txt, with seconds since the start in front.
`@shot NAME` photographs the display into OUT/NAME.png; `RESULT rc=N` ends the run. Files come as a tar over a second port.
Exit code 0 when the guest said `RESULT rc=0`, 1 otherwise: what QEMU itself returns says nothing.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path


def qmp(path, command, arguments):
    """One command to QEMU; its answer, or the error as text."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        lines = connection.makefile("rw", encoding="utf-8")
        lines.readline()  # the greeting
        for name, given in (("qmp_capabilities", {}), (command, arguments)):
            lines.write(json.dumps({"execute": name, "arguments": given}) + "\n")
            lines.flush()
            answer = {}
            while "return" not in answer and "error" not in answer:
                answer = json.loads(lines.readline())
        return answer


def qemu_command(work, sockets, out, cpu):
    return [
        "nice", "-n", "10", "qemu-system-aarch64", "-M", "virt", "-cpu", cpu, "-smp", "2", "-m", "2G",
        "-kernel", work / "vmlinuz", "-initrd", sockets / "initrd",
        "-append", "console=ttyAMA0 rdinit=/init panic=-1 quiet systemd.show_status=0",
        "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot", "-serial", f"file:{out}/serial.log",
        "-qmp", f"unix:{sockets}/qmp,server=on,wait=off",
        "-device", "virtio-gpu-pci", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=lab,path={sockets}/lab,server=on,wait=off", "-device", "virtserialport,chardev=lab,name=lab",
        "-chardev", f"file,id=results,path={sockets}/results.tar", "-device", "virtserialport,chardev=results,name=results",
    ]


def pack(work, payload, initrd):
    """The root with the payload behind it: the kernel unpacks one archive after the other."""
    shutil.copyfile(work / "root.cpio", initrd)
    names = subprocess.run(["find", ".", "-print0"], cwd=payload, check=True, stdout=subprocess.PIPE).stdout
    with open(initrd, "ab") as archive:
        subprocess.run(["cpio", "--null", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=payload, check=True, input=names, stdout=archive)


def connect(path, process):
    deadline = time.monotonic() + 30
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit("lab: QEMU does not start")
            time.sleep(0.1)


def converse(connection, sockets, out, log, deadline):
    """Until the guest's result (its number), its end or the time limit (a sentence)."""
    started, rest = time.monotonic(), b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return "the time limit"
        connection.settimeout(left)
        try:
            got = connection.recv(65536)
        except socket.timeout:
            continue
        if not got:
            return "the machine's end without a result"
        *lines, rest = (rest + got).split(b"\n")
        for line in (line.decode("utf-8", "replace").rstrip("\r") for line in lines):
            text = f"{time.monotonic() - started:6.1f} {line}"
            print(text, flush=True)
            log.write(text + "\n")
            log.flush()
            if line.startswith("@shot "):
                name = os.path.basename(line.split()[1])
                answer = qmp(sockets / "qmp", "screendump", {"filename": f"{out}/{name}.png", "format": "png"})
                connection.sendall(f"{'done' if 'return' in answer else answer['error']['desc']}\n".encode())
            if line.startswith("RESULT rc="):
                return int(line[len("RESULT rc="):])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("work", "payload", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--limit", type=float, default=900, help="seconds until the machine is switched off")
    parser.add_argument("--cpu", default="cortex-a76")
    options = parser.parse_args()
    work, out = options.work.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="device-", dir=work) as scratch:
        sockets = Path(scratch)
        pack(work, options.payload, sockets / "initrd")
        command = qemu_command(work, sockets, out, options.cpu)
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + options.limit
        try:
            with connect(sockets / "lab", process) as connection, open(out / "log.txt", "w", encoding="utf-8") as log:
                result = converse(connection, sockets, out, log, deadline)
                if isinstance(result, int):
                    process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            print("lab: the machine did not switch itself off", file=sys.stderr)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        try:
            with tarfile.open(sockets / "results.tar") as archive:
                archive.extractall(out, filter="fully_trusted") if hasattr(tarfile, "data_filter") else archive.extractall(out)
        except (OSError, tarfile.TarError) as error:
            print(f"lab: no files came back ({error})", file=sys.stderr)
    if result != 0:
        print(f"lab: ended by {result if isinstance(result, str) else f'result {result}'}; see {out}/log.txt, serial.log", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
