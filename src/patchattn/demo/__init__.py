"""The page: the tasks and the layer, for people who would rather look than type (extra `demo`)."""
