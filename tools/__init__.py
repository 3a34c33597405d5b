"""What the authors run: no part of the package, and nothing that a chapter computes."""
