"""Where the faces of a picture are: boxes, five points, and which way is up."""
