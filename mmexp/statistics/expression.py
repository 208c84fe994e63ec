"""Comparisons of ``row.metric`` terms, parsed and never evaluated as code."""

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mmexp.errors import UserError, nearest
from mmexp.statistics.measurements import Term

TERM = re.compile(r"(?<![\w.])([^\W\d]\w*)\.([^\W\d]\w*)(?![\w.])")


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum of factor x row.metric + constant``."""

    terms: Mapping[Term, float]
    constant: float = 0.0

    def plus(self, other: "Linear", factor: float = 1.0) -> "Linear":
        terms = dict(self.terms)
        for term, value in other.terms.items():
            terms[term] = terms.get(term, 0.0) + factor * value
        return Linear(terms, self.constant + factor * other.constant)


def parse_check(check: str) -> list[Linear]:
    """The expressions that must all be positive for the claim to hold.

    ``a.x > b.x + 1`` gives one; a chain ``a.x > b.x > c.x`` and ``and`` give several. Terms are ``row.metric``,
    numbers, ``+``, ``-`` and ``number * term``. ``>=`` is read as ``>``: they differ only where two measured numbers
    are equal.

    Raises:
        UserError: anything else, with the place.
    """
    body, terms = _tree(check)
    parts = body.values if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And) else [body]
    return [linear for part in parts for linear in _comparisons(part, terms, check)]


def check_names(check: str, rows: Collection[str]) -> None:
    """Raises ``UserError`` when a check cannot be read or names a row that is not there."""
    for linear in parse_check(check):
        for row, _ in linear.terms:
            if row not in rows:
                raise UserError(f"check '{check}' names row '{row}'; {nearest(row, rows)}")


def _tree(check: str) -> tuple[ast.expr, dict[str, Term]]:
    """The expression with a name in the place of each term: a row may be called as a word of Python (``with``)."""
    terms: dict[str, Term] = {}

    def stand_in(found: re.Match[str]) -> str:
        name = f"__term_{len(terms)}"
        terms[name] = (found[1], found[2])
        return name

    try:
        return ast.parse(TERM.sub(stand_in, check).strip(), mode="eval").body, terms
    except (SyntaxError, ValueError):
        example = "row_a.overall > row_b.overall"
        raise UserError(f"cannot read check '{check}'; write for example '{example}'") from None


def _comparisons(node: ast.expr, terms: Mapping[str, Term], check: str) -> list[Linear]:
    if not isinstance(node, ast.Compare):
        raise UserError(f"check '{check}' must be comparisons with > or <, joined by 'and'")
    sides = [_linear(side, terms, check) for side in (node.left, *node.comparators)]
    out = []
    for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
        if isinstance(operator, ast.Gt | ast.GtE):
            difference = left.plus(right, -1.0)
        elif isinstance(operator, ast.Lt | ast.LtE):
            difference = right.plus(left, -1.0)
        else:
            raise UserError(f"check '{check}' may compare with >, >=, < and <= only")
        kept = {term: factor for term, factor in difference.terms.items() if factor}
        if not kept:
            raise UserError(f"check '{check}' compares no two different things")
        out.append(Linear(kept, difference.constant))
    return out


def _linear(node: ast.expr, terms: Mapping[str, Term], check: str) -> Linear:
    match node:
        case ast.Name(id=name) if name in terms:
            return Linear({terms[name]: 1.0})
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Linear({}, float(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Linear({}).plus(_linear(operand, terms, check), -1.0)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _linear(left, terms, check).plus(_linear(right, terms, check))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _linear(left, terms, check).plus(_linear(right, terms, check), -1.0)
        case ast.BinOp(left=ast.Constant(value=int() | float() as factor), op=ast.Mult(), right=right):
            return Linear({}).plus(_linear(right, terms, check), float(factor))
    raise UserError(f"check '{check}' may only have terms row.metric, numbers, +, - and number * term")
