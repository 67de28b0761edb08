"""Licences, second versions, sources and known advisories of what Cargo.lock holds: python3 scripts/deny.py  (`make deny`)

The same questions as cargo-deny's, from the same deny.toml, without a network: `cargo metadata` and Cargo.lock answer them. For advisories it needs
a copy of the database, which is a git repository: ADVISORY_DB=DIR, a checkout of rustsec/advisory-db. Without one it says that it has not looked.
Exit code 0: all is well. 1: something is not. 2: the question could not be asked.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys

try:
    import tomllib
except ImportError:
    tomllib = None

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def toml(text):
    if not tomllib:
        sys.stderr.write("deny: needs Python 3.11 or newer, which reads TOML; EOMT_EDGE_TEST_PYTHON names one\n")
        sys.exit(2)
    return tomllib.loads(text)


# --- versions: what Cargo's documentation says of requirements -----------------------------------------------------------------------

def version(text):
    """A version as what it is ordered by; a pre-release comes before its release."""
    core, _, early = text.split("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in early.split(".")) if early else ((2, 0, ""),)
    return numbers + (0,) * (3 - len(numbers)) + parts


def matches(text, requirement):
    """Whether a version meets all parts of a requirement such as `>= 1.2, < 2`, `^0.3` or `*`."""
    return all(meets(version(text), part.strip()) for part in requirement.split(",") if part.strip())


def meets(found, part):
    sign, given = re.fullmatch(r"(>=|<=|>|<|=|\^|~)?\s*(.*)", part).groups()
    if given == "*":
        return True
    given, wild = re.subn(r"(\.[*xX])+$", "", given)
    low = version(given)
    numbers = [int(number) for number in given.split("-")[0].split("+")[0].split(".")]
    if sign in (">=", ">", "<=", "<"):
        # `> 1.2` is above all of 1.2
        if sign in (">", "<=") and len(numbers) < 3:
            beyond = version(".".join(str(n) for n in numbers[:-1] + [numbers[-1] + 1]))
            return (found >= beyond) == (sign == ">")
        return {">=": found >= low, ">": found > low, "<=": found <= low, "<": found < low}[sign]
    fixed = len(numbers)  # how many must stay as they are
    if sign == "~":
        fixed = min(len(numbers), 2)
    elif sign != "=" and not wild:  # ^, or no sign: up to the first number that is not zero
        fixed = next((at + 1 for at, number in enumerate(numbers) if number), len(numbers))
    if sign == "=" and fixed == 3:
        return found == low
    return found >= low and found[:fixed] == tuple(numbers[:fixed])


# --- licences ------------------------------------------------------------------------------------------------------------------------

def allowed(expression, names):
    """Whether these licences are enough for an SPDX expression (`/` is an old way to write OR)."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives():
        good = together()
        while words and words[0] == "OR":
            words.pop(0)
            good = together() or good
        return good

    def together():
        good = one()
        while words and words[0] == "AND":
            words.pop(0)
            good = one() and good
        return good

    def one():
        word = words.pop(0)
        if word == "(":
            good = alternatives()
            words.pop(0)
            return good
        if words and words[0] == "WITH":
            word = f"{word} {words.pop(0)} {words.pop(0)}"
        return word in names

    return alternatives() and not words


def licences(packages, config):
    special = {entry["crate"]: entry["allow"] for entry in config.get("exceptions", [])}
    for package in packages:
        name, text = package["name"], package["license"]
        if not text:
            yield f"{name} {package['version']} names no licence"
        elif not allowed(text, config["allow"] + special.get(name, [])):
            yield f"{name} {package['version']} is under {text}, which [licenses] of deny.toml does not allow"


# --- second versions, sources --------------------------------------------------------------------------------------------------------

def skipped(package, spec):
    name, _, requirement = re.match(r"([^@:]+)([@:](.*))?", spec["crate"]).groups()
    return package["name"] == name and matches(package["version"], requirement or "*")


def second_versions(packages, config):
    known = collections.defaultdict(list)
    for package in packages:
        if not any(skipped(package, spec) for spec in config["skip"]):
            known[package["name"]].append(package["version"])
    for name, versions in sorted(known.items()):
        if len(versions) > 1:
            yield f"{name} is there in the versions {', '.join(sorted(versions, key=version))}; [bans] of deny.toml allows one, or names the others with a reason"


def unused_skips(packages, config):
    for spec in config["skip"]:
        if not any(skipped(package, spec) for package in packages):
            yield f"{spec['crate']} in [bans] of deny.toml is no longer needed"


def sources(locked):
    for package in locked:
        source = package.get("source")
        if source and source != CRATES_IO:
            yield f"{package['name']} {package['version']} comes from {source}, not from crates.io"
        elif source and not re.fullmatch("[0-9a-f]{64}", package.get("checksum", "")):
            yield f"{package['name']} {package['version']} has no checksum in Cargo.lock"


def wildcards(packages):
    for package in packages:
        if package["source"] is None:
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and not dependency.get("path"):
                    yield f"{package['name']} takes any version of {dependency['name']}"


# --- advisories ----------------------------------------------------------------------------------------------------------------------

def advisory(path):
    text = path.read_text(encoding="utf-8")
    block = re.match(r"```toml\n(.*?)\n```", text, re.DOTALL)
    if not block:
        raise ValueError(f"{path} does not begin with a block of TOML")
    return toml(block[1]), next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), "")


def advisories(locked, folder, config):
    """(what applies, how many advisories name a crate of ours at all)"""
    ignored = {entry if isinstance(entry, str) else entry["id"] for entry in config.get("ignore", [])}
    found, looked = [], 0
    for package in locked:
        if not package.get("source"):
            continue
        for path in sorted((folder / "crates" / package["name"]).glob("*.md")):
            looked += 1
            data, title = advisory(path)
            facts, versions = data["advisory"], data.get("versions", {})
            safe = versions.get("patched", []) + versions.get("unaffected", [])
            if facts["id"] in ignored or "withdrawn" in facts or any(matches(package["version"], requirement) for requirement in safe):
                continue
            if facts.get("informational") == "notice":
                continue
            kind = facts.get("informational", "vulnerability")
            remedy = f"mended in {' or '.join(versions['patched'])}" if versions.get("patched") else "no version mends it"
            found.append(f"{package['name']} {package['version']}: {facts['id']} ({kind}) {title}; {remedy}")
    return found, looked


def commit_of(folder):
    done = subprocess.run(["git", "-C", folder, "log", "-1", "--format=%h of %cs"], capture_output=True, text=True, check=False)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 and done.stdout.strip() else "a copy without its history"


def metadata(config):
    words = ["cargo", "metadata", "--locked", "--format-version", "1"] + (["--all-features"] if config["graph"].get("all-features") else [])
    words += [word for target in config["graph"]["targets"] for word in ("--filter-platform", target)]
    for options in (["--offline"], []):  # what a build has fetched is enough, as a rule
        done = subprocess.run(words + options, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)["packages"]
    sys.stderr.write(f"deny: {' '.join(words)}: {done.stderr.strip()}\n")
    sys.exit(2)


def main():
    config = toml((ROOT / "deny.toml").read_text(encoding="utf-8"))
    locked = toml((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    packages = metadata(config)
    wrong = [*licences(packages, config["licenses"]), *second_versions(packages, config["bans"]), *wildcards(packages), *sources(locked)]
    database = os.environ.get("ADVISORY_DB")
    if database:
        folder = pathlib.Path(database)
        if not (folder / "crates").is_dir():
            sys.stderr.write(f"deny: ADVISORY_DB={database} is no checkout of rustsec/advisory-db: it has no folder crates\n")
            sys.exit(2)
        applying, looked = advisories(locked, folder, config["advisories"])
        wrong += applying
        print(f"deny: {len(applying)} of the {looked} advisories about crates of Cargo.lock apply ({commit_of(folder)}); withdrawn versions NOT checked (cargo-deny does)")
    else:
        print("deny: advisories NOT checked; ADVISORY_DB=DIR, a clone of https://github.com/rustsec/advisory-db, has them checked")
    for sentence in unused_skips(packages, config["bans"]):
        print(f"deny: {sentence}")
    for sentence in wrong:
        print(f"deny: WRONG: {sentence}")
    print(f"deny: licences, versions and sources of {len(packages)} packages: {'all is well' if not wrong else f'{len(wrong)} things are wrong'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
