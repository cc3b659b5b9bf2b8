"""Running models on a GPU."""
