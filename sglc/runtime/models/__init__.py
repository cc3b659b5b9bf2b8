"""Model architectures: configuration, weights, and the forward pass of each."""
