"""Metadata of the output container: tags and chapters that are kept, and those that are lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

from patchattn.tasks.video.video_info import ATTACHED, StreamInfo, VideoInfo

__all__ = ["CONTAINERS", "kept_metadata", "lost_metadata", "shifted_chapters", "stream_metadata"]

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}
"""FFmpeg's names of the output containers, by extension."""
FILE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "handler_name", "vendor_id"}
"""Metadata about the source file rather than its content."""
STATISTICS_PREFIXES = ("_statistics", "bps", "number_of_", "duration-")
"""Prefixes of metadata with statistics of the source file."""
DEFAULT_DISPOSITION = 1


def kept_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Filter the metadata of a file or stream: what describes its content is kept."""
    return {
        name: text
        for name, text in metadata.items()
        if name.lower() not in FILE_TAGS
        and not name.lower().startswith(STATISTICS_PREFIXES)
        and not text.startswith("Lav")
    }


def stream_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Filter the metadata of a stream; MP4 reads as "name" what it writes as "title"."""
    return {"title" if name == "name" else name: text for name, text in kept_metadata(metadata).items()}


def shifted_chapters(chapters: Sequence[Mapping[str, Any]], offset: Fraction) -> list[Any]:
    """Shift the times of chapters."""
    moved = []
    for chapter in chapters:
        ticks = round(offset / chapter["time_base"])
        begin, end = max(chapter["start"] + ticks, 0), max(chapter["end"] + ticks, 0)
        moved.append({**chapter, "start": begin, "end": end})
    return moved


def lost_metadata(memory: BytesIO, info: VideoInfo, container: str, streams: Sequence[StreamInfo]) -> list[str]:
    """Return a message on metadata that is lost when the output is read back."""
    import av

    lost: list[str] = []
    with av.open(memory, metadata_errors="surrogateescape") as result:
        read = [
            stream for stream in result.streams if not stream.disposition & ATTACHED and stream.type != "attachment"
        ]
        lost += _lost_names("the file", info.metadata, result.metadata)
        written = [info.main, *(found for found in streams if not found.cover and found.type != "attachment")]
        for found, stream in zip(written, read, strict=False):
            name = "the video" if found is info.main else found.name
            lost += _lost_names(name, stream_metadata(found.metadata), stream_metadata(stream.metadata))
            flags = found.disposition & ~int(stream.disposition) & ~DEFAULT_DISPOSITION
            if flags:
                lost.append(f"the mark {type(stream.disposition)(flags).name} of {name}")
        if len(result.chapters()) < len(info.chapters):
            lost.append("the chapters")
    return [f"{_suffix_of(container)} cannot hold, and this is left out: {', '.join(lost)}"] if lost else []


def _lost_names(owner: str, wanted: Mapping[str, str], read: Mapping[str, str]) -> list[str]:
    found = {name.lower(): text.strip() for name, text in read.items()}
    names = [
        name
        for name, text in kept_metadata(wanted).items()
        if found.get(name.lower()) != text.strip() and (name, text) != ("language", "und") and text.strip()
    ]
    return [f"{' and '.join(names)} of {owner}"] if names else []


def _suffix_of(container: str) -> str:
    """Return the file name extension of a container."""
    return next(suffix for suffix, name in CONTAINERS.items() if name == container)
