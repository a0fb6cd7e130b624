"""The page: the tasks, and a view of the layer's field, in a browser (extra `demo`)."""
