"""
Joins clips into one film.

If all clips have the same encoding, their video packets are copied byte for byte; otherwise the video is encoded once.
Audio is always decoded and joined in samples, because audio packets do not end where the pictures do: copies drift.

The work runs in a child process (this module as a program, JSON on standard input and output), because encoding takes
hundreds of megabytes and must be stoppable at any moment. The child holds the lock on the unfinished file.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from kling_mcp.errors import NotAvailable
from kling_mcp.json_types import members_of
from kling_mcp.media.measured import rounded
from kling_mcp.media.optional import need
from kling_mcp.media.partial_file import DownloadError, Reason, write_new

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import BinaryIO

__all__ = ["BeingJoined", "Clip", "How", "Joined", "join", "join_here"]

How = Literal["copied", "rendered"]

MAX_CLIPS: Final = 24
_RATE: Final = 48_000
_FADE_SAMPLES: Final = _RATE * 5 // 1000
_SOUND_BITS: Final = 192_000
_FORMATS: Final = "mov,matroska,webm"
_MAX_GAIN_DB: Final = 12.0
_SILENT_LUFS: Final = -69.0
_HIGHEST_PEAK_DB: Final = -1.0
_MAX_PICTURES: Final = 100_000
_BUFFER_BYTES: Final = 256 * 1024
_SCALE: Final = "flags=lanczos+accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=limited"
_H264: Final = {"preset": "veryfast", "crf": "18"}
_BT709, _LIMITED = 1, 1
_SECONDS_LIMIT: Final = 1800.0
_STILL_THERE: Final = "Every clip is still there as its own file."


@dataclass(frozen=True, slots=True)
class Clip:
    """
    One clip of a film.

    Args:
        video: The file.
        drops_first: Its first picture repeats the last one of the clip before. It is left out when the film is
            encoded. Copied packets need it, because the pictures after it refer to it.
    """

    video: Path
    drops_first: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """
    A joined film.

    Args:
        path: Its file.
        how: Whether the pictures were copied or encoded again.
        seconds: Its length.
        frames: How many pictures it has.
    """

    path: Path
    how: How
    seconds: Decimal
    frames: int


async def join(clips: Sequence[Clip], target: Path, *, timeout_seconds: float = _SECONDS_LIMIT) -> Joined:
    """
    Join *clips* into the mp4 *target*, in a child process that ends when this call is cancelled.

    The file gets another name, with `` (2)``, where *target* is taken; nothing is ever overwritten.

    Raises:
        BeingJoined: Another process is writing this film.
        NotAvailable: PyAV is missing, a clip cannot be read, the disk refuses, or it takes longer than
            *timeout_seconds*. The clips are not changed.
    """
    need("av", purpose="Joining clips")
    request = {"clips": [[str(clip.video), clip.drops_first] for clip in clips], "target": str(target)}
    command = [sys.executable, "-m", "kling_mcp.media.joining"]
    try:
        with anyio.fail_after(timeout_seconds):
            done = await anyio.run_process(command, input=json.dumps(request).encode(), check=False)
    except TimeoutError:
        raise _failed(f"it took longer than {timeout_seconds:.0f} seconds") from None
    return _answer(done.stdout, done.returncode)


def _answer(text: bytes, returncode: int) -> Joined:
    try:
        answer = members_of(json.loads(text))
    except ValueError:
        answer = members_of(None)
    match answer:
        case {"path": str(path), "how": str(how), "seconds": str(seconds), "frames": int(frames)}:
            return Joined(Path(path), "copied" if how == "copied" else "rendered", Decimal(seconds), frames)
        case {"failed": str(what)}:
            raise (BeingJoined if answer.get("busy") is True else NotAvailable)(what, _STILL_THERE)
        case _:
            raise _failed(f"the process that joins them ended with code {returncode}")


def _failed(what: str) -> NotAvailable:
    return NotAvailable(f"The clips were not joined: {what}.", _STILL_THERE)


class BeingJoined(NotAvailable):
    """Another process is joining the same film."""


class _CannotJoin(Exception):
    """What is wrong, as the end of a sentence."""


def join_here(clips: Sequence[Clip], target: Path) -> Joined:
    """
    Join *clips* into *target* in this process, which is the child process of `join`.

    Raises:
        BeingJoined: Another process is writing this film.
        NotAvailable: A clip cannot be read, or the disk refuses.
    """
    from av.error import FFmpegError

    if not 1 <= len(clips) <= MAX_CLIPS:
        msg = f"{len(clips)} clips; a film has 1 to {MAX_CLIPS}"
        raise ValueError(msg)
    try:
        return _joined(clips, target)
    except _CannotJoin as error:
        raise _failed(str(error)) from None
    except DownloadError as error:
        if error.reason is Reason.BUSY:
            raise BeingJoined("Another process is joining this film.", "Its file is there once that is done.") from None
        raise _failed(f"the disk refuses ({error.reason})") from None
    except FFmpegError as error:
        raise _failed(f"a clip is damaged, or cannot be written ({error.strerror})") from None
    except OSError as error:
        raise _failed(f"the disk refuses ({error.strerror})") from None


def _joined(clips: Sequence[Clip], target: Path) -> Joined:
    probes = [_probe(clip.video, number) for number, clip in enumerate(clips, start=1)]
    how: How = "copied" if _alike(probes) else "rendered"
    if how == "copied":
        rate = probes[0].rate
        frames = [probe.frames for probe in probes]
    else:
        rate = Counter(probe.rate for probe in probes).most_common(1)[0][0]
        frames = [_rendered_frames(probe, clip, rate) for probe, clip in zip(probes, clips, strict=True)]
    path = write_new(target, lambda file: _write(file, clips, probes, how, rate, frames))
    return Joined(path, how, rounded(sum(frames) / rate), sum(frames))


@dataclass(frozen=True, slots=True)
class _Probe:
    """What a clip holds."""

    coding: tuple[object, ...]
    """The encoding; packets of clips with the same one can follow each other."""
    rate: Fraction
    size: tuple[int, int]
    start: Fraction
    """When its first picture is shown, in seconds of the file's own clock."""
    frames: int
    seconds: Fraction
    steps: tuple[tuple[int, int], ...] | None
    """Presentation and decoding time of each packet, in pictures from the first; None if the rate is not constant."""
    sound: bool


@contextmanager
def _opened(video: Path) -> Generator[Any]:
    import av

    # PyAV's own types are incomplete.
    opened: Any = av.open(str(video), container_options={"format_whitelist": _FORMATS})
    with opened as container:
        yield container


def _probe(video: Path, number: int) -> _Probe:
    with _opened(video) as container:
        if not container.streams.video:
            raise _CannotJoin(f"clip {number} has no video")
        stream = container.streams.video[0]
        context = stream.codec_context
        rate = stream.average_rate or stream.guessed_rate
        if context is None or not rate:
            raise _CannotJoin(f"clip {number} cannot be decoded here")
        times = list[tuple[int, int | None]]()
        end = 0
        for packet in container.demux(stream):
            if packet.pts is None or not packet.size:
                continue
            if packet.is_corrupt or len(times) >= _MAX_PICTURES:
                raise _CannotJoin(f"clip {number} is damaged or too long")
            times.append((packet.pts, packet.dts))
            end = max(end, packet.pts + (packet.duration or 0))
        if not times:
            raise _CannotJoin(f"clip {number} has no video")
        first = min(pts for pts, _ in times)
        unit = Fraction(stream.time_base)
        # A rate that was computed from the length has a rounding error.
        rate = _nearest_rate(Fraction(rate))
        steps = _steps(times, first, unit * rate)
        last = max(pts for pts, _ in times)
        length = len(times) / rate if steps else max(end - first, last - first + 1) * unit
        colours = (context.color_range, context.colorspace, context.color_primaries, context.color_trc)
        return _Probe(
            coding=(
                context.name,
                context.profile,
                context.width,
                context.height,
                context.pix_fmt,
                bytes(context.extradata or b""),
                rate,
                *(int(colour) for colour in colours),
                Fraction(stream.sample_aspect_ratio or 1),
                container.format.name,
            ),
            rate=rate,
            size=(context.width, context.height),
            start=first * unit,
            frames=len(times),
            seconds=length,
            steps=steps,
            sound=bool(container.streams.audio) and container.streams.audio[0].codec_context is not None,
        )


def _nearest_rate(rate: Fraction) -> Fraction:
    """*rate*, or the usual one within a thousandth of a picture per second of it."""
    usual = [Fraction(n) for n in (12, 15, 16, 24, 25, 30, 48, 50, 60)] + [
        Fraction(n * 1000, 1001) for n in (24, 30, 60)
    ]
    return next((each for each in usual if abs(each - rate) < Fraction(1, 1000)), rate)


def _steps(times: list[tuple[int, int | None]], first: int, unit: Fraction) -> tuple[tuple[int, int], ...] | None:
    steps = list[tuple[int, int]]()
    for pts, dts in times:
        if dts is None:
            return None
        shown, decoded = (pts - first) * unit, (dts - first) * unit
        # Timestamps in whole milliseconds are slightly off.
        if abs(shown - round(shown)) > Fraction(1, 10) or abs(decoded - round(decoded)) > Fraction(1, 10):
            return None
        steps.append((round(shown), round(decoded)))
    if sorted(shown for shown, _ in steps) != list(range(len(steps))):
        return None
    return tuple(steps)


def _alike(probes: Sequence[_Probe]) -> bool:
    """Whether the packets of all clips can follow each other, in decoding order."""
    if any(probe.coding != probes[0].coding or probe.steps is None for probe in probes):
        return False
    decoded, total = list[int](), 0
    for probe in probes:
        decoded += [total + dts for _, dts in probe.steps or ()]
        total += probe.frames
    return all(before < after for before, after in pairwise(decoded))


def _rendered_frames(probe: _Probe, clip: Clip, rate: Fraction) -> int:
    seconds = probe.seconds - (1 / probe.rate if clip.drops_first and probe.frames > 1 else 0)
    return max(1, round(seconds * rate))


def _write(
    file: BinaryIO, clips: Sequence[Clip], probes: Sequence[_Probe], how: How, rate: Fraction, frames: Sequence[int]
) -> None:
    """Write pictures and audio in step, so that neither is kept in memory for the other."""
    import av

    with ExitStack() as stack:
        made: Any = av.open(file, "w", format="mp4", buffer_size=_BUFFER_BYTES)
        container = stack.enter_context(made)
        if how == "copied":
            first = stack.enter_context(_opened(clips[0].video))
            video = container.add_stream_from_template(first.streams.video[0])
            video.time_base = 1 / rate
            pictures = _copied(clips, probes, video, rate)
        else:
            video = container.add_stream("libx264", rate=rate, options=dict(_H264))
            video.width, video.height = (side - side % 2 for side in probes[0].size)
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = 1 / rate
            video.codec_context.colorspace, video.codec_context.color_range = _BT709, _LIMITED
            pictures = _rendered(clips, probes, video, rate, frames)
        sound: Iterator[tuple[Fraction, Any]] = iter(())
        if any(probe.sound for probe in probes):
            track = container.add_stream("aac", rate=_RATE)
            track.layout, track.bit_rate = "stereo", _SOUND_BITS
            sound = _sound(clips, probes, track, _ends(rate, frames, how, clips, probes))
        heard = Fraction(0)
        for time, packet in pictures:
            while heard < time and (block := next(sound, None)) is not None:
                heard = block[0]
                container.mux(block[1])
            container.mux(packet)
        for _, packets in sound:
            container.mux(packets)


def _copied(
    clips: Sequence[Clip], probes: Sequence[_Probe], video: Any, rate: Fraction
) -> Iterator[tuple[Fraction, Any]]:
    total = 0
    for clip, probe in zip(clips, probes, strict=True):
        steps = iter(probe.steps or ())
        with _opened(clip.video) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None or not packet.size:
                    continue
                shown, decoded = next(steps)
                packet.stream = video
                packet.time_base = 1 / rate
                packet.pts, packet.dts, packet.duration = total + shown, total + decoded, 1
                yield (total + decoded) / rate, packet
        total += probe.frames


def _rendered(
    clips: Sequence[Clip], probes: Sequence[_Probe], video: Any, rate: Fraction, frames: Sequence[int]
) -> Iterator[tuple[Fraction, Any]]:
    total = 0
    for clip, probe, count in zip(clips, probes, frames, strict=True):
        for frame in _at_rate(clip, probe, rate, count, (video.width, video.height)):
            frame.pts, frame.time_base, frame.pict_type = total, 1 / rate, 0
            yield total / rate, video.encode(frame)
            total += 1
    yield total / rate, video.encode(None)


def _at_rate(clip: Clip, probe: _Probe, rate: Fraction, count: int, size: tuple[int, int]) -> Iterator[Any]:
    """Exactly *count* pictures at *rate*: for each time the one that is shown then."""
    with _opened(clip.video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        unit = Fraction(stream.time_base)
        decoded = (frame for frame in container.decode(stream) if frame.pts is not None)
        begin = probe.start
        if clip.drops_first and probe.frames > 1:
            next(decoded)
            begin += 1 / probe.rate
        fitted = _Fitted(stream, size)
        shown = following = next(decoded, None)
        if shown is None:
            raise _CannotJoin(f"{clip.video.name} has no video")
        ready = None
        for number in range(count):
            # A quarter of a picture of tolerance: times at two rates differ by fractions.
            time = begin + number / rate + Fraction(1, 4) / probe.rate
            while following is not None and following.pts * unit <= time:
                shown, ready = following, None
                following = next(decoded, None)
            if ready is None:
                ready = fitted(shown)
            yield ready


class _Fitted:
    """Scales pictures to one size, with bars where the shape differs."""

    def __init__(self, stream: Any, size: tuple[int, int]) -> None:
        self._stream = stream
        self._size = size
        self._graph: Any = None

    def __call__(self, frame: Any) -> Any:
        from av.filter import Graph

        if self._graph is None:
            width, height = self._size
            graph: Any = Graph()
            before = graph.add_buffer(template=self._stream)
            for name, text in (
                ("scale", f"w={width}:h={height}:force_original_aspect_ratio=decrease:force_divisible_by=2:{_SCALE}"),
                ("pad", f"w={width}:h={height}:x=(ow-iw)/2:y=(oh-ih)/2"),
                ("setsar", "1"),
                ("format", "yuv420p"),
                ("buffersink", None),
            ):
                after = graph.add(name, text)
                before.link_to(after)
                before = after
            graph.configure()
            self._graph = graph
        self._graph.push(frame)
        return self._graph.pull()


def _ends(
    rate: Fraction, frames: Sequence[int], how: How, clips: Sequence[Clip], probes: Sequence[_Probe]
) -> list[tuple[int, Fraction]]:
    """For each clip the sample of the film at which it ends, and when in the clip its sound begins."""
    ends, total = list[tuple[int, Fraction]](), 0
    for count, clip, probe in zip(frames, clips, probes, strict=True):
        total += count
        skipped = 1 / probe.rate if how == "rendered" and clip.drops_first and probe.frames > 1 else Fraction(0)
        ends.append((round(total * _RATE / rate), probe.start + skipped))
    return ends


def _sound(
    clips: Sequence[Clip], probes: Sequence[_Probe], track: Any, ends: Sequence[tuple[int, Fraction]]
) -> Iterator[tuple[Fraction, Any]]:
    """The encoded audio; each part with its end, in seconds."""
    import av

    # One queue for all clips, so that the encoder gets one continuous signal.
    queue: Any = av.AudioFifo()
    gains = _gains([_loudness(clip.video) if probe.sound else None for clip, probe in zip(clips, probes, strict=True)])
    begin = done = 0
    for clip, probe, gain, (end, starts) in zip(clips, probes, gains, ends, strict=True):
        source = _levelled(clip.video, starts, end - begin, gain) if probe.sound else _silence(end - begin)
        for frame in source:
            frame.pts = None
            queue.write(frame)
            while (block := queue.read(1024)) is not None:
                block.pts, block.time_base = done, Fraction(1, _RATE)
                done += block.samples
                yield Fraction(done, _RATE), track.encode(block)
        begin = end
    if (block := queue.read(0, partial=True)) is not None:
        block.pts, block.time_base = done, Fraction(1, _RATE)
        yield Fraction(done + block.samples, _RATE), track.encode(block)
    yield Fraction(begin, _RATE), track.encode(None)


def _levelled(video: Path, starts: Fraction, samples: int, gain_db: float) -> Iterator[Any]:
    """Exactly *samples* of the sound of *video* from the second *starts* on."""
    fade = min(_FADE_SAMPLES, samples // 2)
    with _opened(video) as container:
        stream = container.streams.audio[0]
        decoded = (frame for frame in container.decode(stream) if frame.samples)
        first = next(decoded, None)
        if first is None:
            yield from _silence(samples)
            return
        late = round((first.pts * Fraction(first.time_base) - starts) * _RATE) if first.pts is not None else 0
        steps = [
            ("aresample", str(_RATE)),
            ("aformat", "sample_fmts=fltp:channel_layouts=stereo"),
            ("adelay", f"delays={late}S:all=1") if late > 0 else ("atrim", f"start_sample={-late}"),
            ("asetpts", "N"),
            ("volume", f"volume={gain_db:.3f}dB"),
            ("apad", f"whole_len={samples}"),
            ("atrim", f"end_sample={samples}"),
            ("afade", f"type=in:start_sample=0:nb_samples={fade}"),
            ("afade", f"type=out:start_sample={samples - fade}:nb_samples={fade}"),
        ]
        yield from _filtered(stream, first, decoded, steps)


def _filtered(stream: Any, first: Any, rest: Iterator[Any], steps: Sequence[tuple[str, str]]) -> Iterator[Any]:
    from av.error import BlockingIOError as NothingYet
    from av.error import EOFError as AtEnd
    from av.filter import Graph

    graph: Any = Graph()
    before = graph.add_abuffer(
        sample_rate=first.sample_rate,
        format=first.format.name,
        layout=first.layout.name,
        time_base=Fraction(1, first.sample_rate),
    )
    for name, text in (*steps, ("abuffersink", None)):
        after = graph.add(name, text)
        before.link_to(after)
        before = after
    graph.configure()
    count, frame = 0, first
    while True:
        if frame is not None:
            # Counted in samples: gaps between packets are not audio.
            frame.pts, frame.time_base = count, Fraction(1, first.sample_rate)
            count += frame.samples
        try:
            graph.push(frame)
            while True:
                yield graph.pull()
        except NothingYet:
            pass
        except AtEnd:
            return
        if frame is None:
            return
        frame = next(rest, None)


def _silence(samples: int) -> Iterator[Any]:
    import av

    kind: Any = av.AudioFrame
    while samples > 0:
        count = min(samples, 4096)
        frame = kind(format="fltp", layout="stereo", samples=count)
        frame.sample_rate = _RATE
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        yield frame
        samples -= count


def _loudness(video: Path) -> tuple[float, float] | None:
    """How loud *video* is as a whole (LUFS), and its highest true peak (dB); None for silence."""
    found: dict[str, str] = {}
    with _opened(video) as container:
        stream = container.streams.audio[0]
        decoded = (frame for frame in container.decode(stream) if frame.samples)
        first = next(decoded, None)
        if first is None:
            return None
        for frame in _filtered(stream, first, decoded, [("ebur128", "metadata=1:peak=true")]):
            found |= frame.metadata
    return _measured(found)


def _measured(found: dict[str, str]) -> tuple[float, float] | None:
    loudness = float(found.get("lavfi.r128.I", "-inf"))
    peaks = [float(text) for name, text in found.items() if name.startswith("lavfi.r128.true_peaks_ch")]
    if not loudness > _SILENT_LUFS:
        return None
    return loudness, 20 * math.log10(max([*peaks, 1e-5]))


def _gains(measured: Sequence[tuple[float, float] | None]) -> list[float]:
    """How many dB each clip is made louder; a clip that is silent stays as it is."""
    heard = [each[0] for each in measured if each is not None]
    if not heard:
        return [0.0] * len(measured)
    middle = statistics.median(heard)
    return [0.0 if each is None else _gain(*each, middle) for each in measured]


def _gain(loudness: float, peak_db: float, target: float) -> float:
    wanted = max(-_MAX_GAIN_DB, min(_MAX_GAIN_DB, target - loudness))
    # Never louder than the peak limit, unless the clip already was.
    return min(wanted, max(0.0, _HIGHEST_PEAK_DB - peak_db))


def _main() -> None:
    """Read the clips and the target, join them, and answer."""
    request = json.load(sys.stdin)
    clips = [Clip(Path(video), bool(drops)) for video, drops in request["clips"]]
    try:
        joined = join_here(clips, Path(request["target"]))
    except NotAvailable as error:
        answer: dict[str, object] = {"failed": error.what, "busy": isinstance(error, BeingJoined)}
    else:
        answer = {**asdict(joined), "path": str(joined.path), "seconds": str(joined.seconds)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main()
