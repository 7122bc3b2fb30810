"""Boxes on pictures: where the ink is, and that it is seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.boxes.draw import draw, font_for, line_width, palette

GREY = np.full((120, 160, 3), 128, dtype=np.uint8)


def test_lines_lie_on_the_edges_of_the_box():
    drawn = draw(GREY, [[20, 30, 100, 90]], thickness=2)
    colour = palette(1)[0]
    where = (drawn == colour).all(axis=2)
    rows, columns = np.nonzero(where)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 30, 100, 90)
    assert not where[32:88, 22:98].any()  # the inside stays


def test_input_is_not_touched_and_everything_is_accepted():
    before = GREY.copy()
    drawn = draw(GREY, torch.tensor([[1.0, 2, 30, 40]]), torch.tensor([1]), torch.tensor([0.5]), names=("a", "b"))
    assert np.array_equal(GREY, before)
    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8
    assert drawn.flags.writeable
    assert np.array_equal(draw(GREY, []), GREY)
    assert np.array_equal(draw(GREY, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)), GREY)


@pytest.mark.parametrize("background", [0, 255, *palette(12)])
def test_seen_on_any_background(background):
    """Some pixels differ strongly from every background, the class's own colour included."""
    picture = np.empty((100, 100, 3), dtype=np.uint8)
    picture[:] = background
    for label in range(12):
        drawn = draw(picture, [[20, 20, 80, 80]], [label]).astype(int)
        assert (np.abs(drawn - picture.astype(int)).sum(axis=2) > 100).sum() > 100


def test_dashed_is_broken_but_has_corners():
    solid, dashed = (
        draw(GREY, [[20, 30, 100, 90]], thickness=2),
        draw(GREY, [[20, 30, 100, 90]], thickness=2, dashed=True),
    )
    colour = palette(1)[0]
    count = [(drawn == colour).all(axis=2).sum() for drawn in (solid, dashed)]
    assert 0.35 * count[0] < count[1] < 0.75 * count[0]
    for row, column in ((30, 20), (30, 99), (89, 20), (89, 99)):
        assert tuple(dashed[row, column]) == colour
    mixed = draw(GREY, [[20, 30, 60, 90], [80, 30, 120, 90]], thickness=2, dashed=[True, False])
    left, right = (mixed[:, :70] == colour).all(axis=2).sum(), (mixed[:, 70:] == colour).all(axis=2).sum()
    assert left < right


def test_surest_is_on_top():
    drawn = draw(GREY, [[20, 30, 100, 90]] * 2, [0, 1], [0.9, 0.2], captions=["", ""])
    assert (drawn == palette(2)[0]).all(axis=2).any()
    assert not (drawn == palette(2)[1]).all(axis=2).any()


def test_captions_do_not_hide_each_other():
    boxes = [[40, 50, 100, 90], [42, 52, 102, 92]]
    drawn = draw(np.full((200, 300, 3), 128, np.uint8), boxes, [0, 1], names=("first", "second"))
    plain = draw(np.full((200, 300, 3), 128, np.uint8), boxes, [0, 1], captions=["", ""])
    for colour in palette(2):
        ink = (drawn == colour).all(axis=2).sum() - (plain == colour).all(axis=2).sum()
        assert ink > 120  # most of a plate


@given(
    st.lists(st.tuples(*[st.floats(-300, 400)] * 4), max_size=5),
    st.integers(1, 200),
    st.integers(1, 200),
)
@settings(max_examples=40, deadline=None)
def test_any_box_on_any_picture(boxes, width, height):
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    drawn = draw(picture, boxes, [7] * len(boxes), [0.5] * len(boxes), names=("name",) * 8)
    assert drawn.shape == picture.shape


def test_names_in_any_language():
    for name in ("жук", "école", "数字", "κύκλος", "🦔", "", "a b"):
        drawn = draw(GREY, [[20, 40, 100, 90]], [0], names=[name])
        assert name == "" or not np.array_equal(drawn, draw(GREY, [[20, 40, 100, 90]], [0], captions=[""]))
    assert font_for("жук", 12).getlength("жук") > 0


def test_palette():
    colours = palette(100)
    assert len(set(colours)) == 100
    assert palette(3) == colours[:3]  # a class keeps its colour
    light = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in colours]
    assert min(light) > 30
    assert max(light) < 225


def test_lines_grow_with_the_picture():
    assert line_width((64, 64)) == line_width((640, 480)) == 2
    assert line_width((4000, 3000)) > 8
