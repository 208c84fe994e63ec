"""Claims of a sweep answered from its results, with their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmexp.errors import UserError
from mmexp.statistics.expression import Linear, Term, check_names, parse_check
from mmexp.statistics.measurements import Comparison, Measurements

HOLDS, CONTRADICTED, NOT_RESOLVED, NO_ANSWER = "holds", "contradicted", "not resolved", "no answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A claim and its answer."""

    id: str
    claim: str
    check: str
    source: str
    verdict: str
    detail: str
    """One sentence: the numbers behind the verdict, or why there is none."""
    comparisons: Sequence[Comparison] = ()


def answer(
    node: Mapping[str, Any],
    measurements: Measurements,
    labels: Mapping[str, Sequence[str]],
    *,
    searched: bool = False,
) -> Finding:
    """Answer one entry of a sweep's ``findings``.

    Args:
        labels: row -> labels of its lines; where a row has several (axes), a term is their mean.
        searched: rows are what a search has tried, so a missing one was not tried.
    """
    check = str(node.get("check", ""))
    empty = Finding(
        id=str(node.get("id", "")),
        claim=str(node.get("claim", "")),
        check=check,
        source=str(node.get("source", "")),
        verdict=NO_ANSWER,
        detail="",
    )
    try:
        untried = [row for linear in parse_check(check) for row, _ in linear.terms if searched and row not in labels]
        if untried:
            return replace(empty, detail=f"the search did not try '{untried[0]}'")
        check_names(check, labels)
        comparisons = [_compare(linear, measurements, labels, check) for linear in parse_check(check)]
    except UserError as error:
        return replace(empty, detail=str(error))
    verdict = _verdict(comparisons)
    return replace(empty, verdict=verdict, detail=_detail(verdict, comparisons), comparisons=tuple(comparisons))


def _compare(linear: Linear, measurements: Measurements, labels: Mapping[str, Sequence[str]], check: str) -> Comparison:
    terms: dict[Term, float] = {}
    for (row, metric), factor in linear.terms.items():
        for label in labels[row]:
            terms[label, metric] = terms.get((label, metric), 0.0) + factor / len(labels[row])
    comparison = measurements.compare(terms, linear.constant)
    if comparison is None:
        raise UserError(f"no seed has results for all of {', '.join(f'{row}.{m}' for row, m in linear.terms)}")
    return comparison


def _verdict(comparisons: Sequence[Comparison]) -> str:
    if any(comparison.sure and comparison.high < 0 for comparison in comparisons):
        return CONTRADICTED
    return HOLDS if all(comparison.sure for comparison in comparisons) else NOT_RESOLVED


def _detail(verdict: str, comparisons: Sequence[Comparison]) -> str:
    numbers = "; ".join(f"{c.value:+.1f} [{c.low:+.1f}, {c.high:+.1f}]" for c in comparisons)
    if verdict != NOT_RESOLVED:
        return f"{numbers} over {min(c.seeds for c in comparisons)} seeds"
    return f"{numbers}: {needed(comparisons)}"


def needed(comparisons: Sequence[Comparison]) -> str:
    """What it would take to resolve the comparisons that are open."""
    open_ones = [comparison for comparison in comparisons if not comparison.sure]
    if any(comparison.seeds == 1 for comparison in open_ones):
        return "one seed says nothing about training noise; at least 1 more seed needed"
    counts = [comparison.more_seeds for comparison in open_ones]
    if any(count is None for count in counts):
        return "more seeds alone will not resolve it; too few questions, or no difference"
    most = max(1, *(count for count in counts if count is not None))
    return f"about {most} more seed{'s' if most > 1 else ''} needed"
