"""Drawing: the mesh in layers, z-buffer, shadows, and compiled loops over the pixels."""
