"""Methods that take the gradient at a higher point nearby."""
