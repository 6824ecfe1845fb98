"""What looks at trained networks: measures and landscapes of finished runs, and of a user's own parameters."""
