"""Debian packages as a source of text: fetched by name, read without being installed."""

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["MANIFEST", "Package", "fetch", "find", "members", "read_manifest", "write_manifest"]

MANIFEST = Path(__file__).with_name("manifest.json")
_AT_ONCE = 50


@dataclass
class Package:
    """One package: what to fetch, what it was when we did, and what it gave."""

    name: str
    uses: list[str]
    """`english`, `parallel`, or both."""
    version: str = ""
    sha256: str = ""
    num_bytes: int = 0
    english_characters: int = 0
    """Of clean text, before deduplication across packages."""
    pairs: int = 0
    """Clean pairs from its catalogues, and from documents whose German half it holds."""
    has_originals: bool = False
    """Whether it holds English originals of documents that another package translates."""


def read_manifest(path: Path = MANIFEST) -> list[Package]:
    """The packages, in order of their names."""
    return [Package(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["packages"]]


def write_manifest(packages: Iterable[Package], path: Path = MANIFEST) -> None:
    """Write the packages down, one a line."""
    lines = [json.dumps(asdict(package)) for package in sorted(packages, key=lambda p: p.name)]
    head = '{"what": "Debian bookworm packages, fetched with apt-get download",\n"packages": [\n'
    path.write_text(head + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def find(package: Package, folder: Path) -> Path | None:
    """The package's file, if it has been fetched."""
    found = sorted(folder.glob(f"{package.name}_*.deb"))
    return found[-1] if found else None


def fetch(packages: Sequence[Package], folder: Path) -> None:
    """Fetch what is missing, note versions and sums, and say where they are not the manifest's.

    Raises:
        SystemExit: If the archive has a package no more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if find(package, folder) is None]
    for start in range(0, len(missing), _AT_ONCE):
        _download([package.name for package in missing[start : start + _AT_ONCE]], folder)
    for package in packages:
        path = find(package, folder)
        if path is None:
            raise SystemExit(f"package {package.name} was not fetched: run apt-get update first")
        version, digest = path.name.split("_")[1].replace("%3a", ":"), _sha256(path)
        if package.sha256 and package.sha256 != digest:
            print(f"{package.name}: {version} here, {package.version} in the manifest")
        package.version, package.sha256, package.num_bytes = version, digest, path.stat().st_size


def members(deb: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and contents of the package's wanted files; nothing is written to disk."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if member.isfile() and is_wanted(path):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield path, file.read()


def _download(names: list[str], folder: Path) -> None:
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"apt-get download failed: {done.stderr.strip()}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
