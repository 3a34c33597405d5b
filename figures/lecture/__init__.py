"""Examples of AI602 lecture 4 on GANs."""
