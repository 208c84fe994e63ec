"""Where a study lies: a journal file, or a database by its URL."""

import re
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.sweeping.search.optuna_schema import KEY

JOURNAL, SQLITE = "study.journal", "study.db"
JOURNAL_ENDINGS = (".journal", ".log")
SQLITE_TIMEOUT_S = 60


def storage_name(asked: str, folder: Path) -> str:
    """The path or URL that ``optuna-dashboard`` takes.

    Args:
        asked: ``journal``, ``sqlite``, a path that ends in ``.journal`` or ``.log``, or a URL.
        folder: of the sweep.

    Raises:
        UserError: anything else.
    """
    if asked == "journal":
        return str(folder / JOURNAL)
    if asked == "sqlite":
        return f"sqlite:///{folder / SQLITE}"
    if "://" in asked or asked.endswith(JOURNAL_ENDINGS):
        return asked
    raise UserError(
        f"{KEY}.storage: '{asked}' is not a storage; write journal, sqlite, a path ending in .journal, or a URL, "
        "for example sqlite:///study.db or postgresql://host/name"
    )


def shown(storage: str) -> str:
    """A storage's name without a password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:...@", storage)


def open_storage(asked: str, folder: Path) -> Any:
    """Optuna's storage. Raises ``UserError`` when it cannot be opened."""
    name = storage_name(asked, folder)
    try:
        if "://" not in name:
            return _journal(Path(name))
        if name.startswith("sqlite:///"):
            Path(name.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return _database(name)
    except OSError as error:
        raise UserError(f"{KEY}.storage: {shown(name)} cannot be written ({error.strerror})") from None


def default_name(text: str) -> str:
    """A study's name as a folder's."""
    return re.sub(r"[^\w.-]+", "_", text)


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path))
    if path.is_file():
        lock.acquire()
        try:
            _cut_torn_line(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileSymlinkLock(str(path))))


def _cut_torn_line(path: Path) -> None:
    """A writer that was killed leaves half a line, after which Optuna can read but not write."""
    with path.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    options = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{KEY}.storage: {shown(url)} cannot be opened ({shown(reason)})") from None
