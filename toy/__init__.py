"""Small exact worlds in which a claim about GAN training can be computed, not only run."""
