"""Systems of linear constraints over integers: may they have a solution?

The test eliminates equalities by substitution (with the GCD test), then variables by
Fourier-Motzkin with integer tightening of every inequality.  "No" is exact; "yes" means that no
contradiction was found (the rational relaxation has a point), which is the safe side for
dependences.  See W. Pugh, "The Omega test", Supercomputing 1991.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import gcd

Var = Hashable
Row = dict[Var, int]  # the constant is kept under the key `ONE`

ONE: Var = ("1",)
_LIMIT = 600  # more inequalities than this: give up, answer "maybe"


class System:
    """Constraints ``sum(coefficient * variable) + constant`` = 0 or >= 0."""

    def __init__(self) -> None:
        self.equal: list[Row] = []
        self.positive: list[Row] = []

    def copy(self) -> System:
        other = System()
        other.equal, other.positive = list(self.equal), list(self.positive)
        return other

    def add_equal(self, row: Mapping[Var, int]) -> None:
        self.equal.append(dict(row))

    def add_positive(self, row: Mapping[Var, int]) -> None:
        """Require the sum to be zero or more."""
        self.positive.append(dict(row))

    def feasible(self) -> bool:
        """False if there is certainly no integer solution."""
        rows = _substitute_equalities(list(self.equal), list(self.positive))
        return rows is not None and _eliminate(rows)


def combine(a: Mapping[Var, int], b: Mapping[Var, int], x: int = 1, y: int = 1) -> Row:
    """``x * a + y * b`` without zero terms."""
    out: Row = {k: x * v for k, v in a.items()}
    for k, v in b.items():
        out[k] = out.get(k, 0) + y * v
    return {k: v for k, v in out.items() if v}


def _variables(row: Row) -> list[Var]:
    return [k for k, v in row.items() if v and k != ONE]


def _substitute_equalities(equal: list[Row], positive: list[Row]) -> list[Row] | None:
    """The inequalities left when equalities are used up; None on a contradiction."""
    while equal:
        equal.sort(key=lambda row: min((abs(row[v]) for v in _variables(row)), default=0))
        row = equal.pop(0)
        names = _variables(row)
        if not names:
            if row.get(ONE, 0):
                return None
            continue
        if row.get(ONE, 0) % gcd(*(row[v] for v in names)):
            return None
        best = min(names, key=lambda v: abs(row[v]))
        c = row[best]
        # Scaling by |c| keeps rational equivalence; for |c| = 1 it is exact over the integers.
        sign = -1 if c > 0 else 1

        def replaced(other: Row, row: Row = row, best: Var = best, c: int = c, sign: int = sign) -> Row:
            k = other.get(best, 0)
            return combine(other, row, abs(c), sign * k) if k else other

        equal = [replaced(other) for other in equal]
        positive = [replaced(other) for other in positive]
    return positive


def _normal(row: Row) -> Row | None:
    """Divide by the common factor, rounding the constant down; None when always true."""
    names = _variables(row)
    if not names:
        return None if row.get(ONE, 0) >= 0 else {ONE: -1}
    g = gcd(*(row[v] for v in names))
    out = {v: row[v] // g for v in names}
    constant = row.get(ONE, 0) // g
    if constant:
        out[ONE] = constant
    return out


def _tightest(rows: list[Row]) -> list[Row] | None:
    """Drop inequalities implied by a parallel one; None on a contradiction."""
    best: dict[frozenset[tuple[Var, int]], Row] = {}
    for raw in rows:
        row = _normal(raw)
        if row is None:
            continue
        names = _variables(row)
        if not names:
            return None
        key = frozenset((v, row[v]) for v in names)
        if key not in best or row.get(ONE, 0) < best[key].get(ONE, 0):
            best[key] = row
    return list(best.values())


def _eliminate(rows: list[Row]) -> bool:
    while True:
        tight = _tightest(rows)
        if tight is None:
            return False
        rows = tight
        names = {v for row in rows for v in _variables(row)}
        if not names or len(rows) > _LIMIT:
            return True

        def growth(v: Var, rows: list[Row] = rows) -> int:
            up = sum(1 for r in rows if r.get(v, 0) > 0)
            down = sum(1 for r in rows if r.get(v, 0) < 0)
            return up * down - up - down

        chosen = min(names, key=growth)
        low = [r for r in rows if r.get(chosen, 0) > 0]
        high = [r for r in rows if r.get(chosen, 0) < 0]
        rest = [r for r in rows if not r.get(chosen, 0)]
        rows = rest + [combine(a, b, -b[chosen], a[chosen]) for a in low for b in high]
