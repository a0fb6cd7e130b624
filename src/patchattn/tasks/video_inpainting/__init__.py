"""Completion of holes in videos: camera motion, content of other frames, and what is carried along the motion."""
