"""The person: expression, skin texture, brows and beard, and the colours of skin, eyes and hair."""
