"""Networks that are made with the attention layers, and the weights that come with them."""
