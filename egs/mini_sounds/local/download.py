"""Stage 0: fetch Debian packages without root and unpack the files that the recipe reads.

    python local/download.py [--full] [--into downloads]

apt verifies every package. Its lists are reused where the system has them; otherwise they are
fetched into downloads/apt. Nothing is installed and nothing outside `--into` is written.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import tables

ELSE = "or use your own recordings: --sounds DIR"


class DownloadError(Exception):
    """Ends the stage with one line."""


class Apt:
    """apt-get with a private state, so that an ordinary user can fetch packages.

    Args:
        root: folder for the state.
    """

    def __init__(self, root: Path):
        for tool, package in (("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg")):
            if not shutil.which(tool):
                raise DownloadError(f"{tool} (Debian package {package}) is not here; {ELSE}")
        self.root = root.resolve()
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.options = ["-o", f"Dir::Cache={self.root}/cache", "-o", "APT::Sandbox::User="]
        self.options += ["-o", f"Dir::State::Lists={self.root}/lists"]

    def prepare(self, names: list[str]) -> None:
        """Make sure that package lists are there: the system's, else our own copy."""
        own = list(self.options)
        self.options = own[:-2]
        if any(self.knows(name) for name in names):
            return
        self.options = own
        if any(self.knows(name) for name in names):
            return
        print("fetching the package lists of this system's distribution", flush=True)
        self._run("apt-get", "-q", "-o", "Acquire::Languages=none", "update")
        if not any(self.knows(name) for name in names):
            raise DownloadError(f"no package list could be fetched (is there a network?); {ELSE}")

    def knows(self, name: str) -> bool:
        """Whether the lists have a package."""
        show = self._run("apt-cache", "--no-all-versions", "show", name)
        return show.returncode == 0 and "\nFilename:" in show.stdout

    def fetch(self, name: str, folder: Path) -> Path:
        """Download one package into `folder`; a partial file there is resumed.

        Raises:
            DownloadError: with apt's own first error line.
        """
        folder.mkdir(parents=True, exist_ok=True)
        done = self._run("apt-get", "-q", "download", name, cwd=folder)
        files = sorted(folder.glob(f"{name}_*.deb"))
        if done.returncode or not files:
            errors = [x for x in (done.stderr + done.stdout).splitlines() if x[:2] in ("E:", "W:")]
            reason = errors[0][2:].strip() if errors else "no file came"
            raise DownloadError(f"{name}: {reason}; is there a network? Run again to go on, {ELSE}")
        return files[-1]

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None):
        return subprocess.run(
            [tool, *self.options, *arguments],
            cwd=cwd, capture_output=True, text=True, errors="replace", check=False,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **_proxies()},
        )  # fmt: skip


def _proxies() -> dict[str, str]:
    import os

    return {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}


def unpack(deb: Path, wanted: tuple[str, ...], into: Path) -> list[str]:
    """Unpack the wanted files of a package; return those that it does not have."""
    missing = set(wanted)
    partial = into.with_name(f".{into.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as pipe:
        with tarfile.open(fileobj=pipe.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in missing and member.isfile():
                    archive.extract(member, partial, filter="data")
                    missing.discard(name)
        pipe.stdout.read()
    if pipe.returncode:
        raise DownloadError(f"{deb}: cannot be unpacked; delete it and run again")
    shutil.rmtree(into, ignore_errors=True)
    partial.rename(into)
    return sorted(missing)


def run(into: Path, full: bool) -> None:
    """Fetch and unpack every package of the list that is not there yet."""
    packages = tables.packages(full)
    fetched = into / "packages"
    todo = [p for p in packages if not (into / "unpacked" / p.name).is_dir()]
    if not todo:
        print(f"all {len(packages)} packages are there")
        return
    fetched.mkdir(parents=True, exist_ok=True)
    absent = [p.name for p in todo if not list(fetched.glob(f"{p.name}_*.deb"))]
    apt = Apt(into / "apt")
    if absent:
        apt.prepare(absent)
    total, begun, got_mb = sum(p.size_mb for p in todo), time.time(), 0.0
    skipped = []
    for k, package in enumerate(todo, 1):
        found = sorted(fetched.glob(f"{package.name}_*.deb"))
        if not found:
            if not apt.knows(package.name):
                print(f"{package.name}: not in this distribution, left out", flush=True)
                skipped.append(package.name)
                continue
            deb = apt.fetch(package.name, into / "partial")
            found = [deb.rename(fetched / deb.name)]
        gone = unpack(found[-1], package.wanted, into / "unpacked" / package.name)
        got_mb += package.size_mb
        print(
            f"[{k}/{len(todo)}] {package.name} {package.size_mb:.1f} MB, "
            f"{got_mb:.0f} of {total:.0f} MB, {time.time() - begun:.0f} s"
            + (f", {len(gone)} files are not in this version" if gone else ""),
            flush=True,
        )
    if len(skipped) == len(todo):
        raise DownloadError(f"none of the packages is in this distribution; {ELSE}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the larger package list too")
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    arguments = parser.parse_args()
    try:
        run(arguments.into, arguments.full)
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or arguments.into}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
