"""Training losses: `loss_fn(prediction, sample) -> {name: weighted scalar}`."""
