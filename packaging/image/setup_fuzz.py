"""Random setup files against the reading of them: python3 packaging/image/setup_fuzz.py [SECONDS [SEED]]

Good lines, mistyped ones and junk are mixed, damaged, joined and encoded at random. Whatever comes out: reading never raises, a secret that stood in
a line that was not taken is neither on the card nor in the log, states of the same length have it, good lines that were left whole count, and
reading the result again changes nothing. `setup_test.py` runs some; this runs until the time is over and prints the seed of what it finds.
"""

import base64
import importlib.machinery
import importlib.util
import pathlib
import random
import sys
import time

SECRET = "S3cr3tT0ken"
KEYS = ("password", "pasword", "wifi_password", "wifi_pass", "psk", "password_hash", "Password", "kennwort", "wlan key", "x", "user", "hostname", "timezone", "wifi_ssid", "ssh_key")
SEPARATORS = ("=", " = ", ":", " ", "\t=\t", "==", "", " is ", "\xa0=\xa0", "\0", "=\"")
FRONTS = ("", "#", "# ", "##", ";", "//", " ", "\t", "\ufeff", "\u200b", "- ", "export ")
ENDS = ("\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\x1d", "\n\n")
CODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252", "mixed")


def key(number):
    return "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + number.to_bytes(32, "big")).decode()


def a_line(source):
    kind = source.random()
    if kind < 0.3:
        return source.choice(("hostname = cam", "user = robo", f"ssh_key = {key(source.randrange(1 << 64))} me", "timezone = Etc/UTC", "wifi_country = DE", "wifi_ssid = Home",
                              "# words", "", "#user =", "#wifi_password ="))
    if kind < 0.8:
        return source.choice(FRONTS) + source.choice(KEYS) + source.choice(SEPARATORS) + source.choice(("", "my ", "\"")) + SECRET * source.choice((1, 1, 1, 2, 900))
    if kind < 0.9:
        return "".join(chr(source.choice((source.randrange(128), source.randrange(0x3000)))) for _ in range(source.randrange(200)))
    return "wifi_password = " + SECRET


def a_file(source):
    lines = [a_line(source) for _ in range(source.randrange(1, 12))]
    end = source.choice(ENDS)
    coding = source.choice(CODINGS)
    if coding == "mixed":
        data = b"".join(line.encode(source.choice(("utf-8", "latin-1", "utf-16")), "replace") + source.choice(ENDS).encode() for line in lines)
    else:
        data = end.join(lines + [""]).encode(coding, "replace")
    data = bytearray(data)
    for _ in range(source.choice((0, 0, 0, 1, 3, 20))):
        if data:
            at = source.randrange(len(data))
            change = source.random()
            if change < 0.4:
                data[at] = source.randrange(256)
            elif change < 0.7:
                del data[at:at + source.randrange(1, 5)]
            else:
                data[at:at] = source.randbytes(source.randrange(1, 5))
    return bytes(data) if source.random() < 0.9 else bytes(data) * source.randrange(1, 40)


def holds(data):
    return SECRET.encode() in data.replace(b"\0", b"")


def found_wrong(setup, data, size):
    """A sentence for what should not be, or nothing."""
    reading = setup.Reading(data, size)
    if b"".join([reading.mark] + [line.raw + line.end for line in reading.lines]) != data:
        return "the lines are not the file"
    # the name of a network and the comment of a key may be anything: what was taken as such is no secret
    taken = [line for line in reading.lines if line.kind in ("setting", "kept") and holds(line.raw) and line.key not in setup.SECRETS]
    narrow = (None, "user", "hostname", "wifi_country") + (("timezone",) if setup.ZONES.is_dir() else ())
    if any(line.key in narrow for line in taken):
        return "a secret counts as a good value"
    marked = reading.closed(reading.settings)
    for state in (reading.blanked(marked), reading.blanked(marked, secrets=True)):
        if len(state) != len(data):
            return "blanking changes the length"
    for state in (reading.blanked(marked, secrets=True), reading.rewritten(marked)):
        if holds(state) and not taken:
            return "a secret stays on the card"
    said = "\n".join(reading.problems + reading.notes)
    if SECRET in said:
        return "a secret gets into the log"
    if any(line.kind in ("unknown", "refused") for line in reading.lines) and "line " not in said:
        return "a wrong line is not said"
    final = reading.rewritten(marked)
    again = setup.Reading(final, account="robo")
    if set(again.settings) - {"ssh_key", "wifi_country", "password_hash"} - (set(reading.settings) - marked):
        return "an applied line counts once more"
    for state in (reading.blanked(marked, secrets=True), final):
        if "wifi_ssid" in setup.Reading(state, account="robo").settings:
            return "a network has become open"
    return None


def run(setup, count=None, seconds=None, seed=0):
    """Yields a sentence for each finding."""
    end = None if seconds is None else time.monotonic() + seconds
    done = 0
    while (count is None or done < count) and (end is None or time.monotonic() < end):
        number = seed + done
        data = a_file(random.Random(number))
        cut = data[:setup.FILE_BYTES]
        try:
            wrong = found_wrong(setup, cut, len(data))
        except Exception as error:  # pylint: disable=broad-except
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            yield f"seed {number}: {wrong}"
        done += 1
    print(f"setup file: {done} random files from seed {seed} on")


def main():
    program = pathlib.Path(__file__).resolve().parent / "files/usr/lib/eomt-edge-image/eomt-edge-setup"
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("setup_program", str(program))
    setup = importlib.util.module_from_spec(importlib.util.spec_from_loader("setup_program", loader))
    loader.exec_module(setup)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() // 1000
    findings = 0
    for sentence in run(setup, seconds=seconds, seed=seed):
        print(sentence)
        findings += 1
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
