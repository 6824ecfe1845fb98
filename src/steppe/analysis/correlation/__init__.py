"""Which measures go with which outcomes, over many networks."""
