"""Methods that add the gradient of a penalty."""
