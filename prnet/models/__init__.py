"""Networks: `forward(image) -> Prediction`, nothing else."""
