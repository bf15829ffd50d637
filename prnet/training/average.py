"""The moving average of a network's weights, which wander less than they do themselves."""

import copy

import torch

from prnet.models.network import Network

# The first steps count for more, or the start would be remembered: after n steps the decay is at
# most (1 + n) / (WARM_UP + n).
WARM_UP = 10


class WeightAverage:
    """The network to validate and to keep: the average, or with a decay of 0 the network itself.

    Parameters and the statistics of its norms are averaged alike; counters are copied.
    """

    def __init__(self, model: Network, decay: float) -> None:
        """
        Raises:
            ValueError: the decay is not in [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"trainer.average: got {decay}, expected at least 0 and below 1")
        self.decay = decay
        self.source = model
        self.model = copy.deepcopy(model).requires_grad_(False) if decay else model

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (WARM_UP + step))
        own, new = self.model.state_dict(), self.source.state_dict()
        counted = [name for name, tensor in own.items() if not tensor.is_floating_point()]
        for name in counted:
            own.pop(name).copy_(new.pop(name))
        torch._foreach_lerp_(list(own.values()), list(new.values()), 1 - decay)

    def state(self) -> dict:
        """What a resumed run needs of it."""
        return dict(self.model.state_dict()) if self.decay else {}

    def load_state(self, state: dict) -> None:
        """Go on from `state`.

        Raises:
            ValueError: one run averages and the other does not.
        """
        if bool(state) != bool(self.decay):
            raise ValueError(
                "resume: trainer.average is 0 in one of the two runs and not in the other; resume "
                "with the same settings, or start anew with init="
            )
        if state:
            self.model.load_state_dict(state)
