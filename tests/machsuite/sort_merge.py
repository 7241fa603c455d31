"""Bottom-up merge sort."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32

SIZE = 32


def merge(a: int32[SIZE], start: int32, m: int32, stop: int32):
    temp: int32[SIZE]
    for i in range(start, m):
        temp[i] = a[i]
    for j in range(m, stop):
        temp[m + stop - 1 - j] = a[j]
    i: int32 = start
    j: int32 = stop - 1
    for k in range(start, stop):
        if temp[j] < temp[i]:
            a[k] = temp[j]
            j -= 1
        else:
            a[k] = temp[i]
            i += 1


def sort(a: int32[SIZE]):
    width: int32 = 1
    while width < SIZE:
        start: int32 = 0
        while start < SIZE:
            merge(a, start, min(start + width, SIZE), min(start + 2 * width, SIZE))
            start += 2 * width
        width *= 2


def check():
    a = np.random.randint(-1000, 1000, SIZE).astype(np.int32)
    want = np.sort(a)
    allo.customize(sort).build()(a)
    np.testing.assert_array_equal(a, want)
