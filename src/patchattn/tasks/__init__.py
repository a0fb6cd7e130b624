"""Tools from image to image: reconstruct, colorize, inpaint and upscale, with reading and writing of files."""
