"""Crops: pixels go where points go; mirrors exchange left and right; half a body."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dynaconv.data.skeleton import PERSON, Skeleton, mirrored
from dynaconv.errors import UserError
from dynaconv.tasks.keypoints import PoseAugment, PoseSpec
from dynaconv.tasks.keypoints.augment import half_body
from dynaconv.tasks.keypoints.crops import targets
from dynaconv.tasks.keypoints.geometry import Region, crop_matrix, inverted, moved, region_of, warped
from dynaconv.tasks.keypoints.heatmaps import gaussians, mirrored_back
from dynaconv.tasks.keypoints.pose import make_pose

SIZE = (64, 96)
POSE = make_pose("puppet", Skeleton(("left_hand", "right_hand", "nose"), (), ((0, 1),)), sigmas=0.1, image_size=SIZE)
STILL = PoseAugment(rotation=0, scale=(1, 1), hflip=0, half_body=0)


def person(**changes: object) -> PoseSpec:
    return make_pose("person", Skeleton(PERSON, (), mirrored(PERSON)), sigmas=0.05, **changes)  # type: ignore[arg-type]


def test_region_has_the_crops_aspect_and_holds_the_box() -> None:
    assert region_of((10, 20, 30, 40), 0.75, 1.0) == Region(20, 30, 20, 20 / 0.75)
    assert region_of((10, 20, 14, 60), 0.75, 1.25) == Region(12, 40, 30 * 1.25, 40 * 1.25)


@given(
    x=st.floats(0, 100), y=st.floats(0, 100), angle=st.floats(-180, 180), width=st.floats(1, 300), mirror=st.booleans()
)
def test_the_map_leads_back(x: float, y: float, angle: float, width: float, mirror: bool) -> None:
    matrix = crop_matrix(Region(x, y, width, width * 2 / 3), SIZE, rotation=angle, mirror=mirror)
    np.testing.assert_allclose(moved(matrix, np.array([x, y])), (48, 32), atol=1e-9)
    points = np.array([[0.0, 0.0], [33.0, 7.0]])
    np.testing.assert_allclose(moved(inverted(matrix), moved(matrix, points)), points, atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("angle", "width"), [(0, 48), (0, 96), (30, 60), (-45, 48), (90, 48), (20, 300)])
def test_pixels_go_where_points_go(angle: float, width: float, mirror: bool) -> None:
    side = 12 if width > 96 else 5  # shrunk: a spot that stays larger than a pixel
    picture = np.zeros((300, 300), np.uint8)
    picture[143 : 143 + side, 153 : 153 + side] = 255
    spot = np.array([153 + side / 2, 143 + side / 2])
    matrix = crop_matrix(Region(150, 150, width, width * 2 / 3), SIZE, rotation=angle, mirror=mirror)
    crop = np.asarray(warped(Image.fromarray(picture), matrix, SIZE), np.float64)
    rows, columns = np.indices(crop.shape) + 0.5
    seen = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(seen, moved(matrix, spot), atol=0.1)


def test_a_mirrored_crop_has_the_mirrored_target_with_left_and_right_exchanged() -> None:
    keypoints = np.array([[20, 30, 2], [50, 33, 1], [35, 20, 0]], np.float32)
    region = Region(35, 30, 60, 40)
    heat = []
    for mirror in (False, True):
        points, weights = targets(keypoints, crop_matrix(region, SIZE, mirror=mirror), mirror, POSE)
        assert weights.tolist() == [1, 1, 0]
        assert points[2].tolist() == [0, 0], "what is not labelled is not moved"
        heat.append(gaussians(torch.from_numpy(points)[None], POSE.heat_size, 2.0)[:, :2])
    torch.testing.assert_close(mirrored_back(heat[1], POSE.swapped[:2]), heat[0], rtol=0, atol=1e-6)
    assert not torch.allclose(heat[1].flip(-1), heat[0], atol=0.1), "without the exchange they differ"
    picture = Image.effect_noise((80, 60), 90)
    plain, turned = (
        np.asarray(warped(picture, crop_matrix(region, SIZE, mirror=mirror), SIZE), int) for mirror in (False, True)
    )
    assert np.abs(plain - turned[:, ::-1]).max() <= 1


def test_exchange_moves_visibility_with_its_side() -> None:
    keypoints = np.array([[20, 30, 2], [50, 33, 0], [35, 20, 2]], np.float32)
    _, weights = targets(keypoints, crop_matrix(Region(35, 30, 60, 40), SIZE, mirror=True), True, POSE)
    assert weights.tolist() == [0, 1, 1]


def test_a_keypoint_outside_the_crop_has_no_weight() -> None:
    keypoints = np.array([[20, 30, 2], [500, 33, 2], [35, -400, 2]], np.float32)
    points, weights = targets(keypoints, crop_matrix(Region(35, 30, 60, 40), SIZE), False, POSE)
    assert weights.tolist() == [1, 0, 0]
    assert points[1:].tolist() == [[0, 0], [0, 0]]


def test_augmentation_follows_the_seed_and_its_ranges() -> None:
    keypoints, region = np.zeros((3, 3), np.float32), Region(35, 30, 60, 40)
    matrix, mirror = STILL.matrix(region, keypoints, POSE)
    np.testing.assert_array_equal(matrix, crop_matrix(region, SIZE))
    assert not mirror
    assert PoseAugment(hflip=1, half_body=0).matrix(region, keypoints, POSE)[1]
    drawn = []
    for _ in range(2):
        random.seed(3)
        drawn.append([PoseAugment().matrix(region, keypoints, POSE)[0] for _ in range(200)])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    scales = [np.sqrt(abs(np.linalg.det(matrix[:, :2]))) for matrix in drawn[0]]
    assert SIZE[1] / 60 / 1.35 <= min(scales) < SIZE[1] / 60 / 1.25
    assert SIZE[1] / 60 / 0.75 < max(scales) <= SIZE[1] / 60 / 0.65
    # the second row's direction is that of the rotation, whether the crop is mirrored or not
    angles = [np.degrees(np.arctan2(matrix[1, 0], matrix[1, 1])) for matrix in drawn[0]]
    assert -45 <= min(angles) < -40
    assert 40 < max(angles) <= 45
    with pytest.raises(UserError, match=r"scale is \(2.0, 1.0\)"):
        PoseAugment(scale=(2, 1))


def standing() -> np.ndarray:
    """A person whose upper body is at x = 10 and whose lower body is at x = 90."""
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:, 2] = 2
    keypoints[:11, 0], keypoints[11:, 0] = 10, 90
    keypoints[:, 1] = np.arange(17)
    return keypoints


def test_half_a_body_is_the_upper_or_the_lower_one() -> None:
    centres = {half_body(standing(), person()).x for _ in range(40)}  # type: ignore[union-attr]
    assert centres == {10.5, 90.5}
    found = half_body(standing(), person())
    assert found is not None
    assert found.width / found.height == pytest.approx(0.75)


def test_half_a_body_needs_enough_keypoints_and_knowledge_of_the_halves() -> None:
    few = standing()
    few[8:, 2] = 0
    assert half_body(few, person()) is None
    upper_only = standing()
    upper_only[11:, 2] = 0
    assert all(half_body(upper_only, person()).x < 20 for _ in range(20))  # type: ignore[union-attr]
    region = Region(50, 8, 75, 100)
    always = PoseAugment(rotation=0, scale=(1, 1), hflip=0, half_body=1)
    matrix, _ = always.matrix(region, standing(), person(upper_body=[]))
    np.testing.assert_array_equal(matrix, crop_matrix(region, (256, 192)))


def test_what_the_file_leaves_open_is_asked_for() -> None:
    mouse = Skeleton(("snout", "leftear", "rightear"), (), mirrored(("snout", "leftear", "rightear")))
    with pytest.raises(UserError, match=r"--data-arg sigmas=0\.05"):
        make_pose("mouse", mouse)
    assert make_pose("mouse", mouse, sigmas=0.05).sigmas == (0.05, 0.05, 0.05)
    assert make_pose("mouse", mouse, sigmas=[0.1, 0.2, 0.3]).swapped == [0, 2, 1]
    assert make_pose("mouse", mouse, sigmas=0.1, flip_pairs=[]).swapped == [0, 1, 2]
    assert make_pose("mouse", mouse, sigmas=0.1, flip_pairs=[["rightear", "snout"]]).swapped == [2, 1, 0]
    assert person().upper == tuple(range(11))
    for wrong, message in (
        ({"sigmas": [0.1]}, "expected 3 positive numbers"),
        ({"sigmas": 0.0}, "expected 3 positive numbers"),
        ({"sigmas": 0.1, "flip_pairs": [["leftear", "rightea"]]}, "Did you mean"),
        ({"sigmas": 0.1, "flip_pairs": ["leftear"]}, "pairs of names"),
        ({"sigmas": 0.1, "flip_pairs": [["leftear", "rightear"], ["leftear", "snout"]]}, "in one pair at most"),
        ({"sigmas": 0.1, "upper_body": ["tail"]}, "no keypoint 'tail'"),
        ({"sigmas": 0.1, "image_size": (100, 96)}, "image_size is 100x96; expected height and width"),
    ):
        with pytest.raises(UserError, match=message):
            make_pose("mouse", mouse, **wrong)  # type: ignore[arg-type]
