"""What is worn or held: hair, glasses, hats, hoods, clothes, hands and things before the face."""
