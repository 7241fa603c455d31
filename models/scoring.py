"""Logits of every token of a block: what perplexity is made of. Not part of the hardware."""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from flexllm_allo import params, template
from flexllm_allo.ir.types import float32, int32

from .llama import Attention, Mlp, Vocabulary, forward, head

R, T = params("R, T")  # as in `llama`
E, W, U, I, V, L, C, S, D, P = params("E, W, U, I, V, L, C, S, D, P")


@template(R, T)
def score(
    tokens: int32[T], n: int32, pos: int32, vocabulary: Vocabulary, tables: R.Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: R.Cache[C, S, D][L],
) -> float32[T, V]:  # fmt: skip
    """Logits of n of T tokens at positions pos .. pos + n - 1; rows past n are padding."""
    x = forward[R, T](tokens, n, pos, vocabulary.embed, tables, attentions, mlps, cache)
    logits = head[R](x, tables.eps, vocabulary)
    return logits
