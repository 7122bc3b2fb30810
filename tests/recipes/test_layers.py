"""Norms, activations and tricks by name in a recipe: a detector learns with each of them."""

from __future__ import annotations

import pytest
import torch

from torso.nn.activations import ACTIVATIONS
from torso.nn.norms import NORMS
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

SMALL = ["model.backbone.widths=[8,8,16]", "model.backbone.levels=[2,3]", "model.neck.channels=16"]


def learn(*overrides: str) -> torch.nn.Module:
    """Two steps of the demo's detector, much smaller."""
    torch.manual_seed(0)
    model = Recipe.load("demo", ["data.path=digits", *SMALL, *overrides]).model.build(num_classes=3).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    boxes, there = torch.tensor([[[8.0, 8, 40, 40]]] * 2), torch.ones(2, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.zeros(2, 1, dtype=torch.int64), there, ~there)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 64))
    for _ in range(2):
        loss = sum(model.losses(batch).values())
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing
        optimizer.step()
    return model


@pytest.mark.parametrize("name", sorted(NORMS))
def test_norms_by_name(name: str) -> None:
    # FRN brings its own activation.
    more = ["model.backbone.activation=identity"] if name == "frn" else []
    places = [f"model.{part}.norm={name}" for part in ("backbone", "neck", "head")]
    model = learn(*places, *more)
    assert sum(type(layer) is NORMS[name] for layer in model.modules()) == 3 + 5 + 4


@pytest.mark.part("norm/cbn")
def test_norms_with_arguments_find_their_convolutions() -> None:
    model = learn("model.backbone.norm={name: cbn, iterations: 2, burn_in: 0}")
    norms = [layer for layer in model.modules() if type(layer) is NORMS["cbn"]]
    assert [len(norm._past) for norm in norms] == [1, 1, 1]
    assert [norm._past.shape[-1] - 1 for norm in norms] == [3 * 9, 8 * 9, 8 * 9]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_by_name(name: str) -> None:
    model = learn(f"model.backbone.activation={name}", f"model.head.activation={name}")
    assert sum(type(layer) is ACTIVATIONS[name] for layer in model.modules()) == 3 + 4


@pytest.mark.part("trick/schedule_argument")
def test_the_trick_by_name() -> None:
    trick = "{name: schedule_argument, layers: '*.dropout', argument: p, until: 0.5}"
    (built,) = Recipe.load("demo", ["data.path=digits", f"train.tricks=[{trick}]"]).train.build()["tricks"]
    assert (built.layers, built.argument, built.until, built.end) == ("*.dropout", "p", 0.5, None)
