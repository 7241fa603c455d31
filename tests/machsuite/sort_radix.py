"""Radix sort, two bits at a time."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32, uint32

SIZE, RADIX, BITS = 32, 4, 2


def count(a: uint32[SIZE], buckets: int32[RADIX], exponent: int32):
    for r in range(RADIX):
        buckets[r] = 0
    for i in range(SIZE):
        digit: int32 = (a[i] >> exponent) & 3
        buckets[digit] += 1


def place(a: uint32[SIZE], b: uint32[SIZE], buckets: int32[RADIX], exponent: int32):
    first: int32[RADIX] = 0
    for r in range(1, RADIX):
        first[r] = first[r - 1] + buckets[r - 1]
    for i in range(SIZE):
        digit: int32 = (a[i] >> exponent) & 3
        b[first[digit]] = a[i]
        first[digit] += 1


def sort(a: uint32[SIZE]):
    b: uint32[SIZE]
    buckets: int32[RADIX]
    for half in range(32 // BITS // 2):
        count(a, buckets, half * 2 * BITS)
        place(a, b, buckets, half * 2 * BITS)
        count(b, buckets, half * 2 * BITS + BITS)
        place(b, a, buckets, half * 2 * BITS + BITS)


def check():
    a = np.random.randint(0, 2**32, SIZE, dtype=np.uint32)
    want = np.sort(a)
    allo.customize(sort).build()(a)
    np.testing.assert_array_equal(a, want)
