"""Training of the networks: data, loops, checkpoints."""
