"""Stage 0: fetch Debian packages without root and unpack the files that the recipe reads.

    python local/download.py [--full] [--into downloads]

apt verifies every package. Its lists are reused where the system has them; otherwise they are
fetched into downloads/apt. Nothing is installed and nothing outside `--into` is written.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tables

from sep.errors import SepError

ELSE = "or use your own recordings: --sounds DIR"
PROGRESS_S = 3


class DownloadError(SepError):
    """Ends the stage with one line."""


class Apt:
    """apt-get with a private cache, so that an ordinary user can fetch packages.

    Args:
        root: folder for the cache, and for package lists where the system has none.
    """

    def __init__(self, root: Path):
        for tool, package in (("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg")):
            if not shutil.which(tool):
                raise DownloadError(f"{tool} (Debian package {package}) is not here; {ELSE}")
        root = root.resolve()
        for folder in ("lists/partial", "cache/archives/partial"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.options = ["-o", f"Dir::Cache={root}/cache", "-o", "APT::Sandbox::User="]
        self.lists = ["-o", f"Dir::State::Lists={root}/lists"]

    def known(self, names: list[str]) -> set[str]:
        """Which packages the lists have; fetches lists of our own where the system has none."""
        found = self._known(names)
        if not found:
            self.options += self.lists
            found = self._known(names)
        if not found:
            print("fetching the package lists of this distribution", flush=True)
            self._start("apt-get", "-q", "-o", "Acquire::Languages=none", "update").communicate()
            found = self._known(names)
        if not found:
            raise DownloadError(f"no package list could be fetched (is there a network?); {ELSE}")
        return found

    def fetch(self, names: list[str], total_mb: float, folder: Path) -> list[Path]:
        """Download packages into `folder`, verified; what an earlier try left there is used.

        Raises:
            DownloadError: with apt's own first error line.
        """
        folder.mkdir(parents=True, exist_ok=True)
        apt, begun = self._start("apt-get", "-q", "download", *names, cwd=folder), time.time()
        while True:
            try:
                said, _ = apt.communicate(timeout=PROGRESS_S)
                break
            except subprocess.TimeoutExpired:
                got = sum(p.stat().st_size for p in folder.rglob("*.deb")) / 1e6
                seconds = time.time() - begun
                print(f"fetched {got:.0f} of {total_mb:.0f} MB, {seconds:.0f} s", flush=True)
            except BaseException:
                apt.terminate()
                raise
        if apt.returncode:
            errors = [line[2:].strip() for line in said.splitlines() if line.startswith("E:")]
            reason = errors[0] if errors else "apt-get download failed"
            hint = "" if "No space left" in reason else f"; is there a network? {ELSE}"
            raise DownloadError(f"{reason}{hint} (run again to go on)")
        return sorted(folder.glob("*.deb"))

    def _known(self, names: list[str]) -> set[str]:
        shown, _ = self._start("apt-cache", "--no-all-versions", "show", *names).communicate()
        lines = shown.splitlines()
        return {line.removeprefix("Package: ") for line in lines if line.startswith("Package: ")}

    def _start(self, tool: str, *arguments: str, cwd: Path | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            [tool, *self.options, *arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )


def unpack(deb: Path, wanted: tuple[str, ...], into: Path) -> list[str]:
    """Unpack the wanted files of a package; return those that it does not have."""
    missing = set(wanted)
    partial = into.with_name(f".{into.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    damaged = DownloadError(f"{deb}: cannot be unpacked; delete it and run again")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as pipe:
        try:
            with tarfile.open(fileobj=pipe.stdout, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if name in missing and member.isfile():
                        place = partial / name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        with archive.extractfile(member) as source, open(place, "wb") as copy:
                            shutil.copyfileobj(source, copy)
                        missing.discard(name)
            pipe.stdout.read()
        except tarfile.TarError:
            raise damaged from None
    if pipe.returncode:
        raise damaged
    shutil.rmtree(into, ignore_errors=True)
    partial.rename(into)
    return sorted(missing)


def run(into: Path, packages: list[tables.Package]) -> None:
    """Fetch and unpack every package of which a wanted file is not there yet."""
    kept, unpacked = into / "packages", into / "unpacked"
    todo = [p for p in packages if not all((unpacked / p.name / f).is_file() for f in p.wanted)]
    absent = [p for p in todo if not list(kept.glob(f"{p.name}_*.deb"))]
    if absent:
        apt = Apt(into / "apt")
        known = apt.known([p.name for p in packages])
        for package in absent:
            if package.name not in known:
                print(f"{package.name}: not in this distribution, left out", flush=True)
                todo.remove(package)
        _fetch(apt, [p for p in absent if p.name in known], into)
    with ThreadPoolExecutor(2) as pool:
        debs = [sorted(kept.glob(f"{p.name}_*.deb"))[-1] for p in todo]
        wanted = [p.wanted for p in todo]
        places = [unpacked / p.name for p in todo]
        for k, gone in enumerate(pool.map(unpack, debs, wanted, places), 1):
            line = f"[{k}/{len(todo)}] unpacked {todo[k - 1].name}"
            print(line + (f", without {len(gone)} files" if gone else ""), flush=True)
    ready = sum((unpacked / p.name).is_dir() for p in packages)
    if not ready:
        raise DownloadError(f"none of the packages is in this distribution; {ELSE}")
    print(f"{ready} packages are ready")


def _fetch(apt: Apt, packages: list[tables.Package], into: Path) -> None:
    """Fetch packages into `into`/packages, where only complete ones ever appear."""
    if packages:
        size_mb = sum(p.size_mb for p in packages)
        print(f"fetching {len(packages)} packages, {size_mb:.0f} MB", flush=True)
        (into / "packages").mkdir(parents=True, exist_ok=True)
        for deb in apt.fetch([p.name for p in packages], size_mb, into / "partial"):
            deb.rename(into / "packages" / deb.name)
        shutil.rmtree(into / "partial")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the larger package list too")
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    arguments = parser.parse_args()
    try:
        run(arguments.into, tables.packages(arguments.full))
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"error: {error.filename or arguments.into}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
