"""The operators: the only place that registers anything with torch.library; one operator a file."""
