"""How the loss changes when the weights move."""
