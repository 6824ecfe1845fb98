"""Methods that take gradients under random noise."""
