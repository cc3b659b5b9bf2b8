"""One file an operation: the torch reference, and faster forms; `registry` chooses."""
