"""Parameters of tensors in shared memory; no Python face."""
