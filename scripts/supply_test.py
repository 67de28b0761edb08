"""deny.py and sbom.py: python3 scripts/supply_test.py, and on a document of a package: python3 scripts/supply_test.py document FILE|-

The answers expected here are those of Cargo's and SPDX's documentation, and of the schema of CycloneDX 1.5; the schema itself was asked once, by
cyclonedx-python-lib (2026-11-30), which needs too much to be asked each time.
"""

import copy
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import deny  # noqa: E402
import sbom  # noqa: E402

ROOT = sbom.ROOT
HOST = "x86_64-unknown-linux-gnu"
# What a package's program is not without, by package.
PARTS = {"eomt-edge": {"tract-core": "required", "eomt-edge-core": "required"},
         "eomt-edge-bridge": {"rustdds": "required", "zenoh": "required", "mcap": "required", "axum": "required", "rumqttc-v4-next": "required", "ring": "required"}}
PACKAGES = {"eomt-edge": "", "eomt-edge-bridge": "eomt-edge-bridge/zenoh"}  # as scripts/env.sh builds them
READS_TOML = "NOT checked: reading TOML takes Python 3.11"


def faults(made):
    """Where a document is not what CycloneDX 1.5 asks for, or not what the package has."""
    for key, value in {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}.items():
        if made.get(key) != value:
            yield f"{key} is {made.get(key)!r}"
    if not re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["serialNumber"]):
        yield f"serialNumber {made['serialNumber']}"
    if unknown := set(made) - {"bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies"}:
        yield f"fields {unknown}"
    checksums, names, references = sbom.locked(), {}, {made["metadata"]["component"]["bom-ref"]}
    for part in made["components"]:
        names.setdefault(part["name"], part)
        if part["bom-ref"] in references:
            yield f"{part['bom-ref']} is there twice"
        references.add(part["bom-ref"])
        if part["type"] not in ("library", "machine-learning-model") or part["scope"] not in ("required", "excluded") or not part["licenses"][0]["expression"]:
            yield f"{part['bom-ref']}: type, scope or licence"
        found = [entry["content"] for entry in part.get("hashes", [])]
        if any(not re.fullmatch("[0-9a-f]{64}", content) for content in found):
            yield f"{part['bom-ref']}: {found} is no SHA-256"
        if part["type"] == "library" and found != [checksum for crate, checksum in checksums.items() if crate == (part["name"], part["version"])]:
            yield f"{part['bom-ref']}: {found} is not what Cargo.lock has"
    for entry in made["dependencies"]:
        if missing := {entry["ref"], *entry["dependsOn"]} - references:
            yield f"no component {missing}"
    of = made["metadata"]["component"]["name"]
    for name, scope in (PARTS[of] | {"rustix": "required", "image": "required", "syn": "excluded"}).items():
        if names.get(name, {}).get("scope") != scope:
            yield f"{name} is not there as {scope}"
    for name in ("eomt-edge-train", "proptest", "loom", "libfuzzer-sys", "clap_mangen"):
        if name in names:
            yield f"{name} is there, which no package has"
    model = names.get("eomt-nano-scenes.onnx", {})
    if of == "eomt-edge" and (model.get("type") != "machine-learning-model" or model["hashes"][0]["content"] != sha256("models/eomt-nano-scenes.onnx")):
        yield "the model is not there, or its SHA-256 is not the file's"
    if of == "eomt-edge-bridge" and (there := {"tract-core", "eomt-nano-scenes.onnx"} & set(names)):
        yield f"{there} is there, which belongs to the daemon"


def noted(documents):
    """The crates in these documents that may not be used under MIT or Apache-2.0 alone: packaging/copyright has to name them."""
    parts = [part for made in documents for part in made["components"] if part["scope"] == "required"]
    asking = {part["name"] for part in parts if not deny.allowed(part["licenses"][0]["expression"], ["MIT", "Apache-2.0"])}
    return asking | {"lz4-sys"} & {part["name"] for part in parts}  # says MIT of itself; the C library in it is under BSD's


def sha256(path):
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


class Document(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = {program: sbom.document(HOST, program, features) for program, features in PACKAGES.items()}

    def test_the_packages_documents(self):
        for made in self.made.values():
            self.assertEqual(list(faults(made)), [])
        self.assertEqual(self.made["eomt-edge"], sbom.document(HOST))

    def test_faults_are_found(self):
        made = copy.deepcopy(self.made["eomt-edge"])
        made["components"][3]["hashes"][0]["content"] = "0" * 64
        made["dependencies"][0]["dependsOn"].append("pkg:cargo/nothing@1.0.0")
        made["specVersion"] = "1.4"
        self.assertEqual(len(list(faults(made))), 3)
        self.assertEqual(len(list(faults(sbom.document(HOST, "eomt-edge-bridge")))), 1)  # without zenoh

    def test_the_licences_that_ask_for_more_are_told(self):
        text = (ROOT / "packaging/copyright").read_text(encoding="utf-8")
        self.assertEqual(noted(self.made.values()), set(re.findall(r"vendor/([^/]+)/\*", text)))
        used = {licence for line in re.findall(r"^License: (.*)", text, re.MULTILINE) for licence in re.split(" and | or ", line)}
        self.assertEqual(used, set(re.findall(r"^License: (\S+)\n ", text, re.MULTILINE)))

    def test_the_script_builds_these(self):
        self.assertIn(f'--features {PACKAGES["eomt-edge-bridge"]}"', (ROOT / "scripts/env.sh").read_text(encoding="utf-8"))

    def test_the_model_is_the_documented_one(self):
        self.assertIn(sha256("models/eomt-nano-scenes.onnx"), (ROOT / "models/README.md").read_text(encoding="utf-8"))


class Checksums(unittest.TestCase):
    def test_they_tell_damage(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a.deb", "b c.deb", "d.txt"):
                pathlib.Path(folder, name).write_text(name)
            check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
            for _ in range(2):
                subprocess.run(["sh", str(ROOT / "scripts/checksums.sh"), folder, "*.deb"], check=True, capture_output=True)
                self.assertEqual(sorted(line[66:] for line in pathlib.Path(folder, "SHA256SUMS").read_text().splitlines()), ["a.deb", "b c.deb"])
                self.assertEqual(subprocess.run(check, cwd=folder, check=False, capture_output=True).returncode, 0)
            pathlib.Path(folder, "b c.deb").write_text("other")
            self.assertNotEqual(subprocess.run(check, cwd=folder, check=False, capture_output=True).returncode, 0)


class Deny(unittest.TestCase):
    def test_requirements(self):
        # https://doc.rust-lang.org/cargo/reference/specifying-dependencies.html
        table = {"1.2.3": ("1.2.3 1.9.0", "1.2.2 2.0.0"), "^1.2": ("1.2.0 1.99.1", "1.1.9 2.0.0"), "0.2.3": ("0.2.3 0.2.9", "0.2.2 0.3.0"), "^0.2": ("0.2.0", "0.3.0"),
                 "0.0.3": ("0.0.3", "0.0.4 0.0.2"), "0.0": ("0.0.9", "0.1.0"), "0": ("0.9.9", "1.0.0"), "~1.2.3": ("1.2.9", "1.3.0 1.2.2"), "~1.2": ("1.2.9", "1.3.0"),
                 "~1": ("1.9.9", "2.0.0"), "*": ("0.0.1 99.0.0", ""), "1.*": ("1.0.0 1.9.9", "2.0.0"), "1.2.*": ("1.2.3", "1.3.0"), ">= 1.2.0": ("1.2.0 3.0.0", "1.1.9"),
                 "> 1": ("2.0.0", "1.0.1 1.9.9"), "< 2": ("1.9.9", "2.0.0"), "<= 1.2": ("1.2.9", "1.3.0"), "= 1.2.3": ("1.2.3", "1.2.4"), ">= 1.2, < 1.5": ("1.2.0 1.4.9", "1.5.0 1.1.0"),
                 ">=0.5.0-alpha.3": ("0.5.0-alpha.3 0.5.0-alpha.10 0.5.0", "0.5.0-alpha.2 0.4.9"), ">= 1.0.0": ("1.0.0+build", "1.0.0-rc.1")}
        for requirement, (yes, no) in table.items():
            for text in yes.split():
                self.assertTrue(deny.matches(text, requirement), f"{text} for {requirement}")
            for text in no.split():
                self.assertFalse(deny.matches(text, requirement), f"{text} for {requirement}")

    def test_licences(self):
        names = ["MIT", "Apache-2.0", "Unicode-3.0"]
        for text in ("MIT", "MIT OR GPL-3.0", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "GPL-3.0 / MIT", "(MIT OR GPL-3.0) AND Unicode-3.0", "MIT AND Apache-2.0", "GPL-2.0 AND BSD-2-Clause OR MIT"):
            self.assertTrue(deny.allowed(text, names), text)
        for text in ("GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND NCSA", "Apache-2.0 WITH LLVM-exception", "GPL-3.0 OR (MIT AND NCSA)", "NCSA"):
            self.assertFalse(deny.allowed(text, names), text)

    def test_what_is_refused(self):
        crates_io = deny.CRATES_IO
        good = {"name": "a", "version": "1.0.0", "source": crates_io, "checksum": "0" * 64}
        self.assertEqual(list(deny.sources([good, {"name": "ours", "version": "0.1.0"}])), [])
        self.assertIn("not from crates.io", *deny.sources([good | {"source": "git+https://example.org/a"}]))
        self.assertIn("no checksum", *deny.sources([good | {"checksum": ""}]))
        two = [{"name": "a", "version": "1.0.0"}, {"name": "a", "version": "2.1.0"}]
        self.assertIn("1.0.0, 2.1.0", *deny.second_versions(two, {"skip": []}))
        self.assertEqual(list(deny.second_versions(two, {"skip": [{"crate": "a@1"}]})), [])
        self.assertEqual(len(list(deny.unused_skips(two, {"skip": [{"crate": "a@1"}, {"crate": "a@3"}]}))), 1)
        self.assertIn("GPL-3.0", *deny.licences([{"name": "a", "version": "1.0.0", "license": "GPL-3.0"}], {"allow": ["MIT"]}))
        self.assertIn("no licence", *deny.licences([{"name": "a", "version": "1.0.0", "license": None}], {"allow": ["MIT"]}))
        self.assertEqual(list(deny.licences([{"name": "a", "version": "1", "license": "NCSA"}], {"allow": [], "exceptions": [{"crate": "a", "allow": ["NCSA"]}]})), [])

    @unittest.skipIf(deny.tomllib is None, READS_TOML)
    def test_advisories(self):
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder, "crates", "sample")
            place.mkdir(parents=True)
            text = '```toml\n[advisory]\nid = "RUSTSEC-2000-0001"\npackage = "sample"\n{}\n[versions]\npatched = [">= 1.2.3", "^0.9.4"]\nunaffected = ["< 0.5"]\n```\n# A title\n'
            def found(version, extra="", ignore=()):
                (place / "RUSTSEC-2000-0001.md").write_text(text.replace("{}", extra))
                return deny.advisories([{"name": "sample", "version": version, "source": deny.CRATES_IO}], pathlib.Path(folder), {"ignore": list(ignore)})
            for version in ("1.2.2", "0.9.3", "0.5.0"):
                applying, looked = found(version)
                self.assertEqual((len(applying), looked), (1, 1))
                self.assertIn("RUSTSEC-2000-0001 (vulnerability) A title; mended in >= 1.2.3 or ^0.9.4", applying[0])
            for version in ("1.2.3", "2.0.0", "0.9.4", "0.4.9"):
                self.assertEqual(found(version), ([], 1))
            self.assertEqual(found("1.0.0", 'withdrawn = "2001-01-01"')[0], [])
            self.assertEqual(found("1.0.0", 'informational = "notice"')[0], [])
            self.assertEqual(len(found("1.0.0", 'informational = "unmaintained"')[0]), 1)
            self.assertEqual(found("1.0.0", ignore=[{"id": "RUSTSEC-2000-0001", "reason": "x"}])[0], [])

    @unittest.skipIf(deny.tomllib is None, READS_TOML)
    def test_every_exception_has_a_reason(self):
        config = deny.toml((ROOT / "deny.toml").read_text(encoding="utf-8"))
        for entry in config["bans"]["skip"] + config["advisories"]["ignore"]:
            self.assertTrue(entry.get("reason"), entry)


if __name__ == "__main__":
    if sys.argv[1:2] == ["document"]:
        wrong = list(faults(json.load(sys.stdin if sys.argv[2] == "-" else open(sys.argv[2], encoding="utf-8"))))
        sys.exit("\n".join(wrong) if wrong else 0)
    if deny.tomllib is None:
        print(f"advisories, deny.toml: {READS_TOML}")
    unittest.main()
