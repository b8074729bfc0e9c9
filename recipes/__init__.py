"""How the models that Freehold ships are made, from data on disk."""
