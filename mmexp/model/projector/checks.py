"""Checks of single arguments; each names the config key."""

from collections.abc import Iterable

from mmexp.errors import UserError, nearest


def require_at_least(key: str, value: float, minimum: float) -> None:
    """Raises ``UserError`` naming ``projector.<key>`` where the value is too small."""
    if value < minimum:
        raise UserError(f"projector.{key}: {value} must be at least {minimum}")


def require_choice(key: str, value: str, options: Iterable[str]) -> None:
    """Raises ``UserError`` naming ``projector.<key>`` where ``value`` is not an option."""
    if value not in options:
        raise UserError(f"projector.{key}: unknown '{value}'; {nearest(value, options)}")


def require_dropout(dropout: float) -> None:
    """Raises ``UserError`` where it is outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise UserError(f"projector.dropout: {dropout} must be at least 0 and below 1")


def require_heads(dim: int, num_heads: int) -> None:
    """Raises ``UserError`` where the heads do not divide the width."""
    if num_heads < 1 or dim % num_heads:
        raise UserError(
            f"projector.num_heads: {num_heads} heads do not divide the width {dim} "
            "(projector.hidden_dim, or the encoder's width where that is null)"
        )


def inner_dim(hidden_dim: int | None, in_dim: int) -> int:
    """The width inside a projector: ``hidden_dim``, or the encoder's where that is null."""
    if hidden_dim is None:
        return in_dim
    require_at_least("hidden_dim", hidden_dim, 1)
    return hidden_dim
