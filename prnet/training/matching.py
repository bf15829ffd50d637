"""Which losses can teach which networks, known before any data is opened."""

from collections.abc import Callable, Mapping

from prnet.losses.loss import Loss
from prnet.models.network import Network


def mismatch(network: Network, loss_fn: Loss) -> str | None:
    """Why the loss cannot teach the network, for a message; None where it can."""
    lacking = sorted(loss_fn.needs - network.predicts)
    if lacking:
        return f"needs {', '.join(lacking)}, and the network predicts " + ", ".join(
            sorted(network.predicts)
        )
    if loss_fn.num_parameters not in (None, network.num_parameters):
        return (
            f"compares {loss_fn.num_parameters} parameters, and the network predicts "
            f"{network.num_parameters}; give both the same num_shape and num_exp"
        )
    return None


def require_match(
    network: Network, loss_fn: Loss, others: Callable[[], Mapping[str, Loss]]
) -> None:
    """Raise ValueError, naming those of `others` that fit, unless the loss can teach it."""
    reason = mismatch(network, loss_fn)
    if reason is None:
        return
    fitting = [name for name, other in others().items() if mismatch(network, other) is None]
    partly = loss_fn.needs & network.predicts
    advice = ", or set the terms that need more to 0" if partly else ""
    raise ValueError(f"loss: {reason}; losses that fit: {', '.join(fitting)}{advice}")
