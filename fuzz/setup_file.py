"""The setup file of the disk images as a fuzz target: setup_file.py [OPTIONS OF LIBFUZZER] CORPUS...

The input is the file's bytes; what must hold is packaging/image/setup_fuzz.py's. With atheris (libFuzzer for Python, from PyPI) inputs follow
the program's branches. Without it that file's own generator makes random ones, from a seed that is printed, for as long as `-max_total_time` says.
"""

import importlib.machinery
import importlib.util
import pathlib
import sys
import time

sys.dont_write_bytecode = True
IMAGE = pathlib.Path(__file__).resolve().parent.parent / "packaging/image"
PROGRAM = IMAGE / "files/usr/lib/eomt-edge-image/eomt-edge-setup"


def module(name, path, patch=lambda code: code):
    """A program as a module, its code changed by `patch`."""
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    made = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = made
    exec(patch(loader.get_code(name)), made.__dict__)  # pylint: disable=exec-used
    return made


def guided(atheris, checks):
    setup = module("setup_program", PROGRAM, lambda code: atheris.patch_code(code, trace_dataflow=True))

    def one(data):
        wrong = checks.found_wrong(setup, data[:setup.FILE_BYTES], len(data))
        if wrong:
            raise AssertionError(wrong)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def random_ones(checks):
    options = dict(word[1:].split("=", 1) for word in sys.argv[1:] if word.startswith("-") and "=" in word)
    seconds, seed, started = float(options.get("max_total_time", 60)), time.time_ns() // 1000, time.monotonic()
    setup, done = module("setup_program", PROGRAM), 0
    print(f"no atheris here: random files from seed {seed} on")
    # in steps, so that the number of those that were done is known
    while time.monotonic() - started < seconds:
        for sentence in checks.run(setup, count=100, seed=seed + done):
            print(f"FINDING {sentence}")
            return 1
        done += 100
    print(f"stat::number_of_executed_units: {done}\nstat::average_exec_per_sec: {int(done / (time.monotonic() - started))}")
    return 0


def main():
    checks = module("setup_fuzz", IMAGE / "setup_fuzz.py")
    try:
        import atheris  # pylint: disable=import-outside-toplevel
    except ImportError:
        return random_ones(checks)
    return guided(atheris, checks)


if __name__ == "__main__":
    sys.exit(main())
