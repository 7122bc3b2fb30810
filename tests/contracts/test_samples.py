"""Every sampler keeps the contract of its role."""

from __future__ import annotations

import pytest

from torso import testing
from torso.assigners.sample import SAMPLES


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples(name: str) -> None:
    testing.check_sample(SAMPLES[name]())


def test_samples_of_prime_negatives() -> None:
    testing.check_sample(SAMPLES["pisa"](negatives=12, candidates=40))
