"""Distances near 0, where the similarity is steep."""

import pytest
import torch

from pipeline.model.base import distances


def test_small_distances_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of prototypes that equal an embedding, or differ from it by a little in one coordinate."""
    monkeypatch.setattr(distances, "PAIRS_AT_ONCE", 3)
    numbers = torch.Generator().manual_seed(0)
    z_BVD = torch.rand(2, 3, 1280, generator=numbers).double()
    p_PD = torch.cat([z_BVD[0], z_BVD[1, :1], torch.rand(1, 1280, generator=numbers).double()])
    p_PD[1, 7] += 2**-20
    found = distances.exact_distances(z_BVD, p_PD)
    assert (found[0, 0, 0], found[0, 2, 2], found[1, 0, 3]) == (0, 0, 0)
    assert found[0, 1, 1] == 2**-40
    expected = (z_BVD[:, :, None] - p_PD).square().sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
