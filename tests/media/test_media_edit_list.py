"""Film, acceptance 12: what an editor finds in the file beside a film."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest

from kling_mcp.media.edit_list import EditClip, Shot, Take, edit_list

if sys.version_info >= (3, 14):
    pytest.skip("OpenTimelineIO has no wheel for Python 3.14", allow_module_level=True)

import opentimelineio as otio

FOLDER = Path("/films/a b").absolute()
FIRST = EditClip(
    "Clip 1",
    Take("Take 2", FOLDER / "clip 1 ü.mp4", 121),
    120,
    others=(Take("Take 1", FOLDER / "old.mp4", 120), Take("Take 1", FOLDER / "older.mp4", 119)),
    shots=(Shot("Shot 1", 0, 72, "a fox"), Shot("Shot 2", 72, 48, "it leaps")),
    start_frame=1,
    facts={"job_id": "kj_1"},
)
SECOND = EditClip("Clip 2", Take("Take 1", FOLDER / "clip 2.mp4", 240), 240)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30_000, 1001)])
def test_the_timeline_is_as_long_as_the_film_to_the_picture(rate: Fraction) -> None:
    timeline = otio.adapters.read_from_string(edit_list("A film", [FIRST, SECOND], rate, sound=True).decode())

    assert timeline.name == "A film"
    assert timeline.duration() == otio.opentime.RationalTime(360, float(rate))
    assert [track.kind for track in timeline.tracks] == ["Video", "Audio"]
    assert [track.duration().value for track in timeline.tracks] == [360, 360]


def test_every_take_is_there_and_the_one_of_the_film_is_shown() -> None:
    timeline = otio.adapters.read_from_string(edit_list("A film", [FIRST, SECOND], Fraction(24), sound=False).decode())

    first, second = timeline.find_clips()
    assert first.media_reference.name == "Take 2"
    assert otio.url_utils.filepath_from_url(first.media_reference.target_url) == (FOLDER / "clip 1 ü.mp4").as_posix()
    assert first.media_reference.available_range.duration.value == 121
    assert sorted(reference.target_url.rpartition("/")[2] for reference in first.media_references().values()) == [
        "clip%201%20%C3%BC.mp4",
        "old.mp4",
        "older.mp4",
    ]
    assert len(second.media_references()) == 1


def test_shots_are_markers_on_the_pictures_where_they_begin() -> None:
    timeline = otio.adapters.read_from_string(edit_list("A film", [FIRST, SECOND], Fraction(24), sound=True).decode())

    first = timeline.video_tracks()[0][0]
    assert [
        (marker.name, marker.comment, marker.marked_range.start_time.value, marker.marked_range.duration.value)
        for marker in first.markers
    ] == [("Shot 1", "a fox", 1, 72), ("Shot 2", "it leaps", 73, 48)]
    assert first.metadata["kling-mcp"]["job_id"] == "kj_1"
    assert not timeline.audio_tracks()[0][0].markers
