"""Videos: every frame is changed, and the result written with the same times, audio and subtitles."""

from patchattn.deprecation import moved_names
from patchattn.tasks.video.decoded_frames import DecodedFrames, read_video_frames
from patchattn.tasks.video.mapping import VIDEO_SUFFIXES, VideoReport, check_video_output, map_video
from patchattn.tasks.video.resume_folder import Stateful

__all__ = [
    "VIDEO_SUFFIXES",
    "DecodedFrames",
    "Stateful",
    "VideoReport",
    "check_video_output",
    "map_video",
    "read_video_frames",
]

__getattr__ = moved_names(
    __name__,
    {
        "FILM_SUFFIXES": "patchattn.tasks.video:VIDEO_SUFFIXES",
        "Film": "patchattn.tasks.video:VideoReport",
        "check_film_output": "patchattn.tasks.video:check_video_output",
        "map_film": "patchattn.tasks.video:map_video",
    },
)
