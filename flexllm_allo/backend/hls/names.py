"""C++ identifiers for the names of the user: readable, legal, unique in their scope."""

from __future__ import annotations

import re
from collections.abc import Iterable

RESERVED = frozenset(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
    class compl const constexpr const_cast continue decltype default delete do double dynamic_cast else
    enum explicit export extern false float for friend goto if inline int long mutable namespace new
    noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    return short signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor
    xor_eq std hls flexllm tapa half ap_int ap_uint ap_fixed ap_ufixed INFINITY NAN NULL INT64_MIN main
    """.split()
)
# Functions of <math.h> and <algorithm> that a kernel may be called after, where `extern "C"` would clash;
# types and namespaces of `std`, which become ambiguous with it under `using namespace std`.
LIBRARY = frozenset(
    """abs acos asin atan atan2 cbrt ceil copy cos cosh div erf exp exp2 expm1 fabs fill find floor fma fmax
    fmin fmod gamma hypot j0 j1 jn labs ldexp lgamma log log10 log1p log2 logb lrint lround max merge min mod
    modf move nearbyint norm pow power rand read reduce remainder remquo reverse rint rotate round scalb
    search sin sinh sort sqrt swap tan tanh tgamma transform trunc unique write y0 y1 yn

    add_const all_of allocator any any_of array atomic bind bitset byte chrono complex count deque distance
    divides equal exception execution filesystem function future greater hash invoke ios istream iterator
    less list literals logic_error map minus modulus multiplies mutex negate numbers optional ostream pair
    placeholders plus pmr queue range ranges ratio ref regex rel_ops set slice slice_array stack string
    thread tuple unordered_map valarray variant vector views""".split()
)


def identifier(name: str) -> str:
    """A legal C++ identifier that reads like `name` (dots, as of split loops, become underscores)."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"v{text}" if not text or text[0].isdigit() else text


class Names:
    """Hands out identifiers that are unique among themselves and avoid `taken`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(RESERVED) | set(taken)

    def new(self, name: str) -> str:
        base = text = identifier(name)
        number = 0
        while text in self._taken:
            number += 1
            text = f"{base}{number}"
        self._taken.add(text)
        return text
