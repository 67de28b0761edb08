"""What a package is made of, as a CycloneDX 1.5 document: python3 scripts/sbom.py TARGET OUT.json [CRATE [FEATURES]]

CRATE is the package's own crate, eomt-edge unless named; FEATURES are on besides its default ones.
Which crates with which features: `cargo tree`, asked as the package's program is built (these features, this target). Their licences:
`cargo metadata`; their SHA-256: Cargo.lock. What only compiles (macros, build scripts) is there with the scope "excluded". The models are those
that the package's list of assets in Cargo.toml names. The same sources give the same document; SOURCE_DATE_EPOCH dates it.
`scripts/supply_test.py` checks it.
"""

import collections
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cargo(*words):
    done = subprocess.run(["cargo", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"sbom: cargo {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def tree(target, edges, program, more):
    """{(name, version): features}, and {(name, version): what it uses}, of what the program is built from."""
    features, uses, above = {}, collections.defaultdict(set), []
    for line in cargo("tree", "--locked", "-p", program, "--features", more, "-e", edges, "--target", target, "--prefix", "depth", "-f", " {p}|{f}").splitlines():
        depth, name, version, named = re.match(r"(\d+) (\S+) v(\S+)[^|]*\|(\S*)", line).groups()
        crate = (name, version)
        features[crate] = sorted(filter(None, named.split(",")))
        del above[int(depth):]
        if above:
            uses[above[-1]].add(crate)
        above.append(crate)
    return features, uses


def locked():
    """{(name, version): SHA-256}, for crates that come from a registry."""
    blocks = (ROOT / "Cargo.lock").read_text(encoding="utf-8").split("[[package]]")[1:]
    fields = [dict(re.findall(r'^(name|version|checksum) = "(.*)"$', block, re.MULTILINE)) for block in blocks]
    return {(block["name"], block["version"]): block["checksum"] for block in fields if "checksum" in block}


def expression(text):
    """As SPDX writes it now: `/` was an old way to write OR."""
    return re.sub(r"\s*/\s*", " OR ", text)


def reference(crate):
    return f"pkg:cargo/{crate[0]}@{crate[1]}"


def component(crate, package, features, checksum, shipped):
    found = {"type": "library", "bom-ref": reference(crate), "name": crate[0], "version": crate[1], "scope": "required" if shipped else "excluded"}
    if package.get("description"):
        found["description"] = " ".join(package["description"].split())
    if package.get("license"):
        found["licenses"] = [{"expression": expression(package["license"])}]
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        found["purl"] = reference(crate)
    if features:
        found["properties"] = [{"name": "cargo:features", "value": ",".join(features)}]
    return found


def models(root):
    """The package's models, which the engine loads as data."""
    for source, place, _ in root["metadata"]["deb"]["assets"]:
        if source.endswith(".onnx"):
            data = (ROOT / source).read_bytes()
            name = pathlib.Path(source).name
            yield {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name, "version": root["version"], "scope": "required",
                   "description": f"/{place}{name}; where it comes from: models/README.md",
                   "licenses": [{"expression": expression(root["license"])}],
                   "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}]}


def document(target, program="eomt-edge", more=""):
    features, uses = tree(target, "normal,build", program, more)
    shipped, _ = tree(target, "normal,no-proc-macro", program, more)
    features |= shipped  # of a crate that a macro uses too, those that are shipped
    listing = json.loads(cargo("metadata", "--locked", "--all-features", "--format-version", "1", "--filter-platform", target))["packages"]
    packages = {(package["name"], package["version"]): package for package in listing}
    checksums = locked()
    root = next(crate for crate in features if crate[0] == program)
    crates = sorted(crate for crate in features if crate != root)
    data = list(models(packages[root]))
    main = component(root, packages[root], features[root], None, True) | {"type": "application", "purl": f"pkg:generic/{root[0]}@{root[1]}"}
    main.pop("scope")
    made = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": main, "properties": [{"name": "cargo:target", "value": target}]},
        "components": [component(crate, packages[crate], features[crate], checksums.get(crate), crate in shipped) for crate in crates] + data,
        "dependencies": [{"ref": reference(crate), "dependsOn": sorted(map(reference, uses[crate])) + ([model["bom-ref"] for model in data] if crate == root else [])}
                         for crate in [root] + crates],
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        made["metadata"]["timestamp"] = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    made["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(made, sort_keys=True))}"
    return made


def main():
    if len(sys.argv) not in (3, 4, 5):
        sys.exit("usage: sbom.py TARGET OUT.json [CRATE [FEATURES]]")
    made = document(sys.argv[1], *sys.argv[3:])
    out = pathlib.Path(sys.argv[2])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"sbom: {len(made['components'])} components in {out}")


if __name__ == "__main__":
    main()
