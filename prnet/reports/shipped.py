"""What the shipped configuration has: reports are named by it, a protocol by its name and what was
changed in it."""

from collections.abc import Container, Mapping
from typing import NamedTuple

# Fields of a protocol that say what is reported or where it is read from, and change no number.
HARMLESS = {"name", "metrics", "parts", "yaw_labels", "crop.boxes"}
HARMLESS |= {f"balanced.{key}" for key in ("per_bin", "draws", "seed")}
HARMLESS |= {"curve.limit_percent", "curve.limit_deg"}


class Shipped(NamedTuple):
    """See `prnet.entry.shipped`."""

    protocols: Mapping[str, Mapping]  # name -> values
    experiments: Container[str]  # names

    def deviations(self, protocol: Mapping) -> dict[str, object]:
        """Fields in which the protocol of a report is not the shipped one of its name."""
        shipped = flat(self.protocols.get(protocol["name"], {}))
        own = flat(protocol)
        changed = {key for key, value in shipped.items() if key in own and own[key] != value}
        return {key: own[key] for key in sorted(changed - HARMLESS)}

    def protocol_words(self, protocol: Mapping) -> str:
        """`2dasl protocol.z_alignment=mean`: name and deviations, as on a command line."""
        words = [protocol["name"]]
        for key, value in self.deviations(protocol).items():
            text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
            text = str(text).lower() if isinstance(text, bool) else text
            words.append(f"protocol.{key}={text}")
        return " ".join(words)


def flat(values: Mapping) -> dict[str, object]:
    """The fields of a protocol, those of its parts as `part.field`."""
    fields = {}
    for key, value in values.items():
        parts = value.items() if isinstance(value, Mapping) else ()
        fields |= {f"{key}.{name}": part for name, part in parts} or {key: value}
    return fields
