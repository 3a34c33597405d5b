"""What is played: costs, penalties and the leak."""
