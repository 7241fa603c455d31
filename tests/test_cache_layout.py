"""The KV cache of one design as another one keeps it: element by element, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from flexllm_allo.models.cache_layout import PLAIN, CacheLayout, handed_over, resized

L, C, S, D = 2, 3, 11, 8
PACKED = CacheLayout(key=4, value=2)
LAYOUTS = [
    PLAIN,
    PACKED,
    CacheLayout(by_head=True),
    CacheLayout(by_head=True, key_ports=2),
    CacheLayout(by_head=True, key_ports=4),
    CacheLayout(key=4, value=2, by_head=True),
    CacheLayout(key=4, value=2, by_head=True, turns=3),
]


@pytest.fixture
def cache():
    random = np.random.default_rng(0)
    return {name: random.integers(-128, 128, (L, C, S, D)).astype(np.int8) for name in ("k_codes", "v_codes")}


def same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(cache, layout):
    same(layout.by_position(layout.memories(cache), S), cache)


def test_keys_side_by_side_and_parts_of_values(cache):
    made = PACKED.memories(cache)
    assert made["k_codes"].shape == (L, C, 3, D, 4)
    assert made["v_codes"].shape == (L, C, 4, S, 2)
    for position in (0, 5, S - 1):
        keys = made["k_codes"][:, :, position // 4, :, position % 4]
        np.testing.assert_array_equal(keys, cache["k_codes"][:, :, position])
        for element in (0, 3, D - 1):
            value = made["v_codes"][:, :, element // 2, position, element % 2]
            np.testing.assert_array_equal(value, cache["v_codes"][:, :, position, element])


def test_every_head_has_memories_and_its_keys_take_turns(cache):
    made = CacheLayout(by_head=True, key_ports=2).memories(cache)
    assert sorted(made) == [*(f"k_{i}" for i in range(2 * C)), *(f"v_{i}" for i in range(C))]
    assert {made[f"k_{i}"].shape for i in range(2 * C)} == {(L, 6, D)}  # the last of every second is padding
    for head in range(C):
        np.testing.assert_array_equal(made[f"v_{head}"], cache["v_codes"][:, head])
        for position in range(S):
            key = made[f"k_{2 * head + position % 2}"][:, position // 2]
            np.testing.assert_array_equal(key, cache["k_codes"][:, head, position])


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("read", LAYOUTS)
@pytest.mark.parametrize("wanted", [S - 3, S + 6])
def test_from_one_design_to_another_of_another_context(cache, written, read, wanted):
    memories = handed_over(written, read, written.memories(cache), S, wanted)
    same(memories, read.memories(resized(cache, wanted)))
    found, kept = read.by_position(memories, wanted), min(S, wanted)
    for name, codes in cache.items():
        assert found[name].shape == (L, C, wanted, D)
        np.testing.assert_array_equal(found[name][:, :, :kept], codes[:, :, :kept])
        assert not found[name][:, :, kept:].any()
