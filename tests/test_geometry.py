"""Properties of the arithmetic that rows, pixels and delivery URLs share."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageapi import geometry
from imageapi.geometry import Box, Crop, CropFault, Edit, Rendition, Size

SIDES = st.integers(1, 20_000)
SIZES = st.builds(Size, SIDES, SIDES)
BOXES = st.integers(1, 4000)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
RENDITIONS = st.builds(Rendition, st.just("any"), BOXES, BOXES, st.sampled_from(["fit", "fill"]))


@st.composite
def crops(draw: st.DrawFn) -> tuple[Size, Crop]:
    """A picture and a crop that it can have."""
    size = draw(SIZES)
    edges = []
    for side in size:
        start = draw(st.floats(0, side - 1))
        edges.append((start, draw(st.floats(1, max(1, side - start)))))
    (x, w), (y, h) = edges
    return size, Crop(x, y, w, h)


@given(crops())
def test_a_box_lies_inside_and_is_rounded_half_up(pair: tuple[Size, Crop]):
    size, crop = pair
    box = geometry.crop_box(crop, size)
    assert box is not None
    assert 0 <= box.left < box.right <= size.width
    assert 0 <= box.top < box.bottom <= size.height
    edges = (crop.x, crop.y, crop.x + crop.w, crop.y + crop.h)
    assert box == Box(*(math.floor(edge + 0.5) for edge in edges))


@given(SIZES, st.builds(Crop, FLOATS, FLOATS, FLOATS, FLOATS))
def test_any_crop_gives_a_box_inside_or_a_fault_that_names_a_field(size: Size, crop: Crop):
    try:
        box = geometry.crop_box(crop, size)
    except CropFault as error:
        fault = error
    else:
        fault = None
    if fault:
        assert fault.field in {"crop_x", "crop_y", "crop_w", "crop_h"}
        assert fault.message
        return
    assert (box is None) == (crop.w == 0 and crop.h == 0)
    if box:
        assert min(box.left, box.top) >= 0
        assert min(box.size) >= 1
        assert box.right <= size.width
        assert box.bottom <= size.height


@pytest.mark.parametrize(
    ("crop", "field"),
    [
        (Crop(-1, 0, 5, 5), "crop_x"),
        (Crop(0, math.nan, 5, 5), "crop_y"),
        (Crop(0, 0, math.inf, 5), "crop_w"),
        (Crop(0, 0, 0, 5), "crop_w"),
        (Crop(0, 0, 5, 0), "crop_h"),
        (Crop(95, 0, 6, 5), "crop_w"),
        (Crop(0, 45, 5, 5.5), "crop_h"),
        (Crop(3.6, 0, 0.5, 5), "crop_w"),
    ],
)
def test_a_fault_names_the_first_field(crop: Crop, field: str):
    with pytest.raises(CropFault) as caught:
        geometry.crop_box(crop, Size(100, 50))
    assert caught.value.field == field


def test_the_last_half_pixel_is_outside():
    assert geometry.crop_box(Crop(0, 0, 100.49, 50), Size(100, 50)) == Box(0, 0, 100, 50)
    with pytest.raises(CropFault):
        geometry.crop_box(Crop(0, 0, 100.5, 50), Size(100, 50))


@given(crops(), st.sampled_from(geometry.ROTATIONS))
def test_the_effective_size_is_the_boxes_turned(pair: tuple[Size, Crop], rotation: int):
    size, crop = pair
    box = geometry.crop_box(crop, size)
    assert box is not None
    effective = geometry.effective_size(size, Edit(crop, rotation))
    assert effective == (box.size if rotation in {0, 180} else box.size[::-1])


@given(SIZES, RENDITIONS)
def test_a_plan_never_enlarges_and_never_leaves(size: Size, rendition: Rendition):
    box, target = geometry.plan(size, rendition)
    assert 0 <= box.left < box.right <= size.width
    assert 0 <= box.top < box.bottom <= size.height
    assert 1 <= target.width <= min(box.size.width, rendition.width)
    assert 1 <= target.height <= min(box.size.height, rendition.height)


@given(SIZES, BOXES, BOXES)
def test_fit_shows_the_whole_and_touches_a_side(size: Size, width: int, height: int):
    box, target = geometry.plan(size, Rendition("any", width, height, "fit"))
    assert box == Box(0, 0, *size)
    assert target == size or target.width == width or target.height == height


@given(SIZES, BOXES, BOXES)
def test_fill_is_centred_and_fills_what_is_large_enough(size: Size, width: int, height: int):
    box, target = geometry.plan(size, Rendition("any", width, height, "fill"))
    assert abs(box.left - (size.width - box.right)) <= 1
    assert abs(box.top - (size.height - box.bottom)) <= 1
    assert box.size.width == size.width or box.size.height == size.height
    if size.width >= width and size.height >= height:
        assert target == Size(width, height)


@pytest.mark.parametrize(
    ("size", "rendition", "target"),
    [
        (Size(48, 48), Rendition("large", 200, 200, "fill"), Size(48, 48)),
        (Size(150, 300), Rendition("large", 200, 200, "fill"), Size(150, 150)),
        (Size(4032, 3024), Rendition("full", 1920, 1920, "fit"), Size(1920, 1440)),
        (Size(10_799, 8), Rendition("full", 1920, 1920, "fit"), Size(1920, 1)),
    ],
)
def test_the_examples_of_the_design(size: Size, rendition: Rendition, target: Size):
    assert geometry.plan(size, rendition).size == target
