"""Training of an identity classifier (Section 3.4)."""
