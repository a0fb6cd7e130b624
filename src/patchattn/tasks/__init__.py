"""Image in, image out."""
