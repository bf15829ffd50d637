"""From a photo to faces: framing, the network, meshes, textures and what is written of them."""
