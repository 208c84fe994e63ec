"""The one error that is a user's mistake: shown as one line, exit code 2, no traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: says what is wrong, where, and what would be right.

    Raised anywhere below the CLI; only the CLI prints it. It is a ``ValueError`` so that library
    users can catch it without importing this module.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """Text that offers the nearest option, for the end of an error message.

    Returns `` did you mean 'x'?`` when one is close, else the list of options.
    """
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose from: {', '.join(options)}" if options else "there are none"
