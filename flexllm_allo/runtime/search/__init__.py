"""The search for designs: the best one for a card, and the nearest one that fits it."""
