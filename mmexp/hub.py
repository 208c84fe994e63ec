"""The model hub: checked once before anything is requested, so that without it we fail at once."""

import socket
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

from mmexp.errors import UserError

CONNECT_TIMEOUT_S = 3.0

Fetched = TypeVar("Fetched")


@cache
def reachable() -> bool:
    """Whether the hub answers; asked once per process. Without it the client is put into its offline mode.

    The client itself would retry for half a minute per file.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlparse(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def from_hub(name: str, key: str, fetch: Callable[[], Fetched]) -> Fetched:
    """What ``fetch`` gets for a hub id or a local folder.

    Args:
        name: hub id or folder.
        key: config key that names it, for the message.

    Raises:
        UserError: it cannot be loaded; says what to download.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # its bar of loaded weights would fill a log
    local = Path(name).is_dir()
    online = local or reachable()
    try:
        return fetch()
    except Exception as error:  # the hub's client and the loaders raise a dozen types of their own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:160]
        if local:
            raise UserError(f"{key}: '{name}' is not a checkpoint ({reason})") from error
        state = "gave nothing" if online else "cannot be reached, and it is not in the local cache"
        raise UserError(
            f"{key}: '{name}' is not a local folder and the hub {state}; run 'hf download {name}' where it can be "
            "reached and set HF_HOME, or give the folder" + (f" ({reason})" if online else "")
        ) from error
