"""The intermediate representation: types, nodes, traversal, printer, verifier."""
