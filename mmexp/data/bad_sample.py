"""A sample that cannot be used: one error type, so that only this kind of error is ever skipped."""

from mmexp.errors import UserError


class BadSample(UserError):
    """A broken record, image or tokenisation; skipped within ``batching.max_bad_samples``, otherwise an error.

    Args:
        origin: ``file:line`` or ``file[index]``.
        reason: what is wrong with it.
    """

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"{origin}: {reason}")
        self.origin, self.reason = origin, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.origin, self.reason)
