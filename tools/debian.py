"""Debian's packages of any architecture, unpacked into a folder: nothing is installed, nobody need be root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def fetch(packages, architecture, root, folder, dependencies=True):
    """Unpack packages into root, with all that they depend on unless told not to.

    They come from where this Debian has its own. apt-get runs with settings, lists and a cache of its own in folder, so that
    it leaves the system's alone.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        sys.exit("error: apt-get and dpkg are needed, to fetch Debian's packages")
    own = folder / f"apt-{architecture}"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (own / part).mkdir(parents=True, exist_ok=True)
    (own / "status").touch()
    (own / "apt.conf").write_text(
        f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State "{own}/state";\nDir::State::status "{own}/status";\nDir::Cache "{own}/cache";\n'
        'Acquire::Languages "none";\nAPT::Sandbox::User "";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(own / "apt.conf")}

    def apt(*arguments):
        command = ["apt-get", "-qq", "-o", "Debug::NoLocking=1", *arguments]
        subprocess.run(command, check=True, env=environment, cwd=own / "cache", stdout=2)

    apt("update")
    if dependencies:
        apt("install", "--yes", "--download-only", "--no-install-recommends", *packages)
        found = own / "cache" / "archives"
    else:
        apt("download", *packages)
        found = own / "cache"
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for archive in sorted(Path(found).glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(archive), str(partial)], check=True)
        archive.unlink()
    partial.rename(root)
