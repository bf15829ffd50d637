"""Where a run's batches come from: a set that lies on the device, or a loader."""

import pytest
import torch

from prnet.checkpoint import load_checkpoint
from prnet.datasets.resident import Room
from prnet.train import read_settings, run
from prnet.training.feeding import SHARE_FOR_THE_SET, lies_on_device
from prnet.training.processes import Processes
from tests.plans import CPU, assert_equal_states, configuration

ROOM = Room(450, 450, 10**6)


class Gathered(Processes):
    """One of two processes on cards; the other one has no room."""

    def gather(self, values: list) -> list:
        return [*values, False]


def settings(tiny_data_dir, built_dir, *overrides: str):
    return read_settings(
        configuration(
            f"data_dir={tiny_data_dir}",
            f"built={built_dir}",
            "face=bfm",
            "dataset=300w_lp",
            "augment=prn",
            "device=cpu",
            "validation_fraction=0",
            "model.network.input_side=32",
            "model.network.width=2",
            "trainer.batch_size=2",
            "trainer.epochs=100",
            "scheduler=step",
            *overrides,
        )
    )


def test_a_run_is_the_same_to_the_bit_also_resumed(tiny_data_dir, built_dir, tmp_path):
    """Six steps of a set that lies there, of a loader, and three of a loader and then three of a
    set that lies there; the schedule does not look at the end."""
    ends = []
    for first, then in ((True, None), (False, None), (False, True)):
        folder = tmp_path / f"{first}_{then}"
        words = [f"trainer.resident={str(first).lower()}"]
        steps = 6 if then is None else 3
        run(settings(tiny_data_dir, built_dir, *words, f"trainer.max_steps={steps}"), folder)
        if then is not None:
            words = [f"trainer.resident={str(then).lower()}", "trainer.max_steps=6"]
            words += [f"resume={folder / 'last.pt'}"]
            folder = folder / "on"
            run(settings(tiny_data_dir, built_dir, *words), folder)
        ends.append(load_checkpoint(folder / "last.pt"))
    assert ends[0]["training"]["step"] == 6
    for other in ends[1:]:
        assert_equal_states(ends[0], other)


def test_a_stream_cannot_lie_there():
    with pytest.raises(ValueError, match="trainer.resident=true: dataset=synthetic renders every"):
        read_settings(configuration("trainer.resident=true"))


def test_auto_looks_for_room_on_a_card(monkeypatch, caplog):
    """One line says what was measured; all processes do the same."""
    caplog.set_level("INFO")
    free = [round(ROOM.size / SHARE_FOR_THE_SET) + 1]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 140 * 10**9))
    card = Processes(0, 1, torch.device("cuda"))
    assert lies_on_device("auto", ROOM, card, epochs=30)
    measured = "1.35 GB of pictures, 2.25 GB free, of which 60 % may be taken"
    assert caplog.messages == [f"trainer.resident=auto: true ({measured})"]
    assert not lies_on_device("auto", ROOM, card, epochs=0.5)
    assert "the run has 0.5 epochs, it pays from 1 on" in caplog.messages[-1]
    assert not lies_on_device("auto", ROOM, Gathered(0, 2, torch.device("cuda")), epochs=30)
    free[0] -= 2
    assert not lies_on_device("auto", ROOM, card, epochs=30)
    assert not lies_on_device("auto", ROOM, CPU, epochs=30)
    assert lies_on_device(True, ROOM, CPU, epochs=0.1)
    assert not lies_on_device(False, ROOM, card, epochs=30)
    with pytest.raises(ValueError, match="trainer.resident: got 'yes', expected one of True, Fa"):
        lies_on_device("yes", ROOM, CPU, epochs=1)
