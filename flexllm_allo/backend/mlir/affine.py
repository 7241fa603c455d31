"""Index expressions in the affine dialect's syntax, where they are affine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...analysis.affine import Affine, Quotient, Term, affine
from ...ir import nodes as ir

Dims = Mapping[str, str]  # loop variables that the affine dialect may use, and their values


def access(indices: Sequence[ir.Expr], dims: Dims) -> str | None:
    """``%i + 1, %j * 2``: the indices of an affine access, or None if one is not affine."""
    texts = [_text(affine(i), dims, None) for i in indices]
    return None if None in texts else ", ".join(t for t in texts if t is not None)


def bound(expr: ir.Expr, word: str, dims: Dims) -> str | None:
    """A loop bound: a constant, or a map of affine forms of which `word` (min or max) is taken."""
    parts = _parts(expr, word)
    forms = [affine(p) for p in parts]
    if len(forms) == 1 and forms[0] is not None and forms[0].is_constant:
        return str(forms[0].constant)
    names: dict[str, str] = {}
    texts = [_text(form, dims, names) for form in forms]
    if None in texts:
        return None
    formals, actuals = ", ".join(names.values()), ", ".join(names)
    results = ", ".join(t for t in texts if t is not None)
    prefix = f"{word} " if len(texts) > 1 else ""
    return f"{prefix}affine_map<({formals}) -> ({results})>({actuals})"


def _parts(expr: ir.Expr, word: str) -> list[ir.Expr]:
    if isinstance(expr, ir.Binary) and expr.op == word:
        return _parts(expr.left, word) + _parts(expr.right, word)
    return [expr]


def _text(form: Affine | None, dims: Dims, formals: dict[str, str] | None) -> str | None:
    """A form over the values in `dims`, or over the formal names given to them in `formals`."""
    if form is None:
        return None
    texts: list[str] = []
    for term, factor in form.terms:
        text = _term(term, dims, formals)
        if text is None:
            return None
        texts.append(text if factor == 1 else f"{text} * {factor}")
    if form.constant or not texts:
        texts.append(str(form.constant))
    return " + ".join(texts)


def _term(term: Term, dims: Dims, formals: dict[str, str] | None) -> str | None:
    if isinstance(term, Quotient):
        inner = _text(term.value, dims, formals)
        return None if inner is None else f"(({inner}) floordiv {term.divisor})"
    if not isinstance(term, str) or term not in dims:
        return None
    if formals is None:
        return dims[term]
    return formals.setdefault(dims[term], f"d{len(formals)}")
