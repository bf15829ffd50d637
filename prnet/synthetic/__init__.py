"""The synthetic world: what a sample is made of, how it is drawn, and the stream of samples."""
