"""The camera: where it stands, the light, and what lens, sensor, tone curve and JPEG do."""
