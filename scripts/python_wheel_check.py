"""What is in the Python client's wheel, and what it says of itself. See python-check.sh."""
import email
import pathlib
import sys
import zipfile

root = pathlib.Path(__file__).resolve().parent.parent
with zipfile.ZipFile(sys.argv[1]) as wheel:
    files = {name: wheel.read(name) for name in wheel.namelist()}
info = next(name.split("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
package = root / "clients/python/eomt_edge_client"
wanted = {f"eomt_edge_client/{path.name}": path.read_bytes() for path in package.iterdir() if path.suffix in (".py", ".typed")}
wanted |= {f"{info}/licenses/{name}": (root / name).read_bytes() for name in ("LICENSE-APACHE", "LICENSE-MIT")}
for name, content in wanted.items():
    assert files.get(name) == content, f"{name} is missing in the wheel, or another one"
others = [name for name in files if name not in wanted and not name.startswith(f"{info}/")]
assert not others, f"in the wheel, and nobody knows why: {others}"

metadata = email.message_from_bytes(files[f"{info}/METADATA"])
readme = metadata.get_payload().strip()
assert readme == (root / "clients/python/README.md").read_text().strip() and metadata["Description-Content-Type"] == "text/markdown"
assert metadata["License-Expression"] == "Apache-2.0 OR MIT" and metadata["Requires-Python"] == ">=3.9", metadata.items()
assert sorted(metadata.get_all("Provides-Extra")) == ["rerun", "supervision"], metadata.get_all("Provides-Extra")
assert "Typing :: Typed" in metadata.get_all("Classifier")
needed = [line for line in metadata.get_all("Requires-Dist") if "extra" not in line]
assert len(needed) == 1 and needed[0].startswith("numpy"), needed
print(f"{pathlib.Path(sys.argv[1]).name}: {len(files)} files, needs {needed[0]}")
