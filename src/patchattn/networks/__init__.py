"""Networks built on the attention layers, and their trained weights."""
