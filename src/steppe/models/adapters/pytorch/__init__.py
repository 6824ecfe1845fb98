"""How PyTorch modules become pure functions of JAX. Imports PyTorch: only to be imported where it is installed."""
