"""Every command that a BigGAN on ImageNet needs, watched as it runs: an integration harness."""
