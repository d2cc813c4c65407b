"""The actors of tape libraries, over simulated libraries and the real target."""
