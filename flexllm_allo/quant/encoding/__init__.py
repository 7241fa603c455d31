"""How codes lie in memory: packed bits, positions of sparse weights, planes, and their bytes."""
