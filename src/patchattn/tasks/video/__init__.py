"""Videos: every frame is changed, and the result written with the same times, sound and subtitles."""

from patchattn.tasks.video.mapping import FILM_SUFFIXES, Film, check_film_output, map_film
from patchattn.tasks.video.work import Stateful

__all__ = ["FILM_SUFFIXES", "Film", "Stateful", "check_film_output", "map_film"]
