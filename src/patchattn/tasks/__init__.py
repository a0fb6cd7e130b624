"""Picture in, picture out."""
