"""What the fork server imports before the first worker is forked; it is imported there and nowhere else.

Importing torch, lightning, transformers and timm takes seconds, for every stage of a sweep. The server imports them
once, has one thread and has run no operation (asserted), and each worker is a fresh process all the same. Modules that
are loaded keep their code: edits while a sweep runs do not reach later workers.
"""

import contextlib
import gc
import importlib
import os
import pkgutil
import sys
from pathlib import Path

PACKAGES = "MMEXP_PRELOAD"
"""Environment variable: packages, joined by commas; of mmexp every module."""
READY_FILE = "MMEXP_PRELOAD_READY"
"""Environment variable: a file that is made when all is imported."""


def load(module: str) -> None:
    """Import a module; of mmexp every one. What cannot be imported is the worker's to complain about."""
    with contextlib.suppress(Exception):
        package = importlib.import_module(module)
        if module == "mmexp":
            for found in pkgutil.walk_packages(package.__path__, "mmexp."):
                if not found.name.endswith(("__main__", ".preload")):
                    load(found.name)


def prepare(packages: str, ready: Path) -> None:
    """Import packages and say so.

    Raises:
        RuntimeError: an import has started a thread, so that forking would be unsafe.
    """
    for package in filter(None, packages.split(",")):
        load(package)
    threads = Path("/proc/self/task")
    if threads.is_dir() and len(list(threads.iterdir())) > 1:
        raise RuntimeError("an import has started a thread in the fork server")
    gc.freeze()  # a collection in a worker would copy every page that it shares with the server
    ready.touch()


if READY_FILE in os.environ and sys.argv == ["-c"]:  # as multiprocessing starts its server
    prepare(os.environ.pop(PACKAGES, ""), Path(os.environ.pop(READY_FILE)))
